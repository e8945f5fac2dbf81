"""The engine for many processes: PostgreSQL 15 or newer, which all of them share."""

from uplift_server.store.postgres.database import PostgresDatabase

__all__ = ["PostgresDatabase"]
