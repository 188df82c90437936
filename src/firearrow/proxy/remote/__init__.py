"""Brokers elsewhere, behind the proxy: name servers, routes, connections."""
