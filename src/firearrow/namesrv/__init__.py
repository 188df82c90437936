"""The name server: a route table as a pure machine, and the requests it answers."""
