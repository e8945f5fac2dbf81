"""What processes have told each other, for those that PostgreSQL cannot notify because a pooler stands between."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql

from uplift_server.store.schema_processes import CHANGED, directory_changes, told_texts

KEPT: Final = 5_000
"""How many numbers behind the last one a text is removed: whoever has not looked since has lost it."""
OVERLAP: Final = 1_000
"""Numbers are given before they can be read: from so many before the last one on it is looked again. As many as are
told at a time."""
_SINCE: Final = sa.text(
    "SELECT seq, text FROM told_texts WHERE seq > :after AND seq <> ALL (:known) ORDER BY seq"
).bindparams(sa.bindparam("known", type_=postgresql.ARRAY(sa.BigInteger)))


@dataclass(frozen=True, slots=True)
class Place:
    """How far somebody has looked."""

    last: int
    """The highest number that was found."""
    known: frozenset[int]
    """Those found of the last OVERLAP numbers."""
    xid: int
    """The last transaction that was found to have noted a change in `directory_changes`."""


def add(connection: Connection, texts: Sequence[str]) -> None:
    """Tell something, and remove what is old. A crash may lose all of it."""
    connection.execute(sa.text("SET LOCAL synchronous_commit = off"))
    newest = sa.select(sa.func.max(told_texts.c.seq)).scalar_subquery()
    connection.execute(sa.delete(told_texts).where(told_texts.c.seq < newest - KEPT))
    connection.execute(sa.insert(told_texts), [{"text": text} for text in texts])


def end(connection: Connection) -> Place:
    """Where whoever looks from now on begins: what was told before was told to others."""
    last = connection.scalar(sa.select(sa.func.max(told_texts.c.seq))) or 0
    known = connection.scalars(sa.select(told_texts.c.seq).where(told_texts.c.seq > last - OVERLAP))
    return Place(last, frozenset(known), _last_change(connection))


def since(connection: Connection, place: Place) -> tuple[list[str], Place]:
    """What was told since then, and how far that goes. That something was changed in the directory is told, too.

    Where numbers have gone back, as after a failover that has lost the latest, it begins anew.
    """
    if (connection.scalar(sa.select(sa.func.max(told_texts.c.seq))) or 0) < place.last:
        return [CHANGED], end(connection)
    rows = connection.execute(_SINCE, {"after": place.last - OVERLAP, "known": list(place.known)})
    found = {row.seq: row.text for row in rows}
    last = max(found, default=place.last)
    known = frozenset(seq for seq in place.known.union(found) if seq > last - OVERLAP)
    xid = _last_change(connection)
    changed = [CHANGED] if xid != place.xid else []
    return [*found.values(), *changed], Place(last, known, xid)


def _last_change(connection: Connection) -> int:
    return connection.scalar(sa.select(sa.func.max(directory_changes.c.xid))) or 0
