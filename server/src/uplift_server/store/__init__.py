"""The store: a contract, a schema, and two engines (SQLite and PostgreSQL) that implement the contract."""
