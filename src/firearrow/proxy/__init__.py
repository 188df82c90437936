"""The service of RocketMQ 5's gRPC protocol, over brokers that speak remoting."""
