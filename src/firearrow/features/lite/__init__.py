"""Lite topics (RocketMQ 5.5.0): many short-lived topics of one parent, each a light queue."""
