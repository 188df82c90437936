"""Pure bytes, shared by wire and disk: stored record, property string, ids, hashes."""
