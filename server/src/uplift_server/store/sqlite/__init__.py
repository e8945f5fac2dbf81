"""The SQLite engine: one file, one process, one writer thread."""

from uplift_server.store.sqlite.database import SqliteDatabase

__all__ = ["SqliteDatabase"]
