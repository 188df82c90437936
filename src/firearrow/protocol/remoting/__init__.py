"""RocketMQ's remoting protocol: frames, both header codecs, request tables, JSON bodies."""
