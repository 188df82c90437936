"""The only room that opens a socket: listeners, connections, TLS, first-byte detection."""
