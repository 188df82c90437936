"""Use cases every feature stands on: send, pull, offsets, topics, groups, members, long poll."""
