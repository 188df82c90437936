"""The Admin service of the gRPC proxy."""
