"""SQL92 filters: which messages a consumer wants, by their properties."""
