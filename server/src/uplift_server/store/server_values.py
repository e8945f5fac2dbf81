"""Server values: integers that the server stores by name."""

from collections.abc import Collection, Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import locks
from uplift_server.store.schema import marks

_GET: Final = sa.select(marks.c.name, marks.c.value).where(marks.c.name.in_(sa.bindparam("names", expanding=True)))
_PUT: Final = sa.text(
    "INSERT INTO marks (name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)


def get_all(connection: Connection, prefix: str) -> dict[str, int]:
    """Return the values whose names start with `prefix`, in a dictionary with the names as keys."""
    query = sa.select(marks.c.name, marks.c.value).where(marks.c.name.startswith(prefix, autoescape=True))
    return {row.name: row.value for row in connection.execute(query)}


def get(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """Return the values with these names, in a dictionary with the names as keys. Names without a value are omitted."""
    return {row.name: row.value for row in connection.execute(_GET, {"names": list(names)})}


def lock(connection: Connection, prefix: str) -> None:
    """Until this transaction ends, prevent other transactions from replacing values whose names start with a prefix.

    If new values depend on the stored values, call this function before you read the stored values.
    """
    locks.take(connection, prefix)


def replace(connection: Connection, prefix: str, values: Mapping[str, int]) -> None:
    """Store these values, and delete all other values whose names start with `prefix`."""
    lock(connection, prefix)
    others = sa.and_(marks.c.name.startswith(prefix, autoescape=True), marks.c.name.not_in(values))
    connection.execute(sa.delete(marks).where(others))
    if values:
        connection.execute(_PUT, [{"name": name, "value": value} for name, value in values.items()])
