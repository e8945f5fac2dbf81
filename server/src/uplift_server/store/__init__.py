"""Storage: one contract, one schema, and the SQLite and PostgreSQL engines."""
