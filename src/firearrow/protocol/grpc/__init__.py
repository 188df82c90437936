"""RocketMQ 5's gRPC protocol: HTTP/2, calls, and the messages of ``apache.rocketmq.v2``."""
