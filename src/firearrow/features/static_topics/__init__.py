"""Static topics (logical queues): a fixed number of queues that can move from broker to broker."""
