"""Frozen values shared by every room: topics, groups, names, codes, clock. No I/O."""
