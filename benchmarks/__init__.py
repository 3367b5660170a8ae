"""Studies of this library and the tables of its docs; run as modules from the repository root."""
