"""A database's random ID. It stays the same even if the database's address changes."""

import secrets
from typing import Final

from sqlalchemy import Connection

from uplift_server.store import server_values

VALUE_NAME: Final = "database.id"
_BITS: Final = 62


def get(connection: Connection) -> str | None:
    """Return the database ID, or None if the database has none yet."""
    found = server_values.get(connection, [VALUE_NAME]).get(VALUE_NAME)
    return None if found is None else format_id(found)


def ensure(connection: Connection) -> None:
    """Assign an ID to the database if it has none."""
    server_values.lock(connection, VALUE_NAME)
    if get(connection) is None:
        server_values.replace(connection, VALUE_NAME, {VALUE_NAME: secrets.randbits(_BITS)})


def format_id(value: int) -> str:
    """Return the database ID as text, in the format that `/readyz` shows."""
    return f"{value:016x}"
