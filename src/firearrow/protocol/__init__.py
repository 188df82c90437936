"""Sans-IO codecs of the wire protocols. They know no socket, clock or file."""
