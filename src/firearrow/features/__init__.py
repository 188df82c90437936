"""Feature rooms: siblings of one shape; none imports another."""
