"""The engine for PostgreSQL 15 or newer. Several processes can share a database."""

from uplift_server.store.postgres.database import PostgresDatabase

__all__ = ["PostgresDatabase"]
