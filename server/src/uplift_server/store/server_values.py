"""Server values: single numbers that the server stores by name."""

from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.schema import marks


def get_all(connection: Connection, prefix: str) -> dict[str, int]:
    """Return the values whose names start with a prefix."""
    query = sa.select(marks.c.name, marks.c.value).where(marks.c.name.startswith(prefix, autoescape=True))
    return {row.name: row.value for row in connection.execute(query)}


def get(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """Return the values that exist."""
    query = sa.select(marks.c.name, marks.c.value).where(marks.c.name.in_(names))
    return {row.name: row.value for row in connection.execute(query)}


def replace(connection: Connection, prefix: str, values: Mapping[str, int]) -> None:
    """Replace all values whose names start with a prefix."""
    connection.execute(sa.delete(marks).where(marks.c.name.startswith(prefix, autoescape=True)))
    if values:
        connection.execute(sa.insert(marks), [{"name": name, "value": value} for name, value in values.items()])
