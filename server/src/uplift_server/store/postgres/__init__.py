"""The engine for several processes, on PostgreSQL 15 or newer."""

from uplift_server.store.postgres.database import PostgresDatabase

__all__ = ["PostgresDatabase"]
