"""Apache RocketMQ 5 in plain Python: name server, broker and store."""

__version__ = "0.1.0"
