"""Compaction topics: of each queue a second log that keeps the newest message of every key."""
