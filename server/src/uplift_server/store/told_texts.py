"""What processes have told each other, for those that PostgreSQL cannot notify because a pooler stands between."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.schema_processes import told_texts

KEPT: Final = 5_000
"""How many numbers behind the last one it is removed: whoever has not looked since has lost it."""


def add(connection: Connection, texts: Sequence[str], *, after: int) -> None:
    """Tell something, and remove what is old by a number that was told of. A crash may lose all of it."""
    connection.execute(sa.text("SET LOCAL synchronous_commit = off"))
    connection.execute(sa.delete(told_texts).where(told_texts.c.seq < after - KEPT))
    connection.execute(sa.insert(told_texts), [{"text": text} for text in texts])


def since(connection: Connection, after: int) -> dict[int, str]:
    """What was told after a number, by its own."""
    query = sa.select(told_texts).where(told_texts.c.seq > after).order_by(told_texts.c.seq)
    return {row.seq: row.text for row in connection.execute(query)}
