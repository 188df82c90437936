"""Commit log, consume queues, key index, flush, recovery, retention: no network, no feature."""
