"""Marks: single numbers that the server remembers of itself."""

from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.schema import marks


def get_all(connection: Connection, prefix: str) -> dict[str, int]:
    """The marks whose names begin so."""
    query = sa.select(marks.c.name, marks.c.value).where(marks.c.name.startswith(prefix, autoescape=True))
    return {row.name: row.value for row in connection.execute(query)}


def get(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """Those of the marks that there are."""
    query = sa.select(marks.c.name, marks.c.value).where(marks.c.name.in_(names))
    return {row.name: row.value for row in connection.execute(query)}


def replace(connection: Connection, prefix: str, values: Mapping[str, int]) -> None:
    """Have these marks and no others whose names begin so."""
    connection.execute(sa.delete(marks).where(marks.c.name.startswith(prefix, autoescape=True)))
    if values:
        connection.execute(sa.insert(marks), [{"name": name, "value": value} for name, value in values.items()])
