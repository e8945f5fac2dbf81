"""A random ID that identifies a database at any address."""

import secrets
from typing import Final

from sqlalchemy import Connection

from uplift_server.store import server_values

MARK: Final = "database.id"
_BITS: Final = 62


def get(connection: Connection) -> str | None:
    """The database's ID; None if no server of this release has started on it."""
    found = server_values.get(connection, [MARK]).get(MARK)
    return None if found is None else text(found)


def ensure(connection: Connection) -> None:
    """Give the database an ID unless it has one."""
    if get(connection) is None:
        server_values.replace(connection, MARK, {MARK: secrets.randbits(_BITS)})


def text(value: int) -> str:
    """An ID as `/readyz` shows it."""
    return f"{value:016x}"
