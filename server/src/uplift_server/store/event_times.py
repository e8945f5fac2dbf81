"""From an instant to a place among the events, whose numbers grow with time."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.schema import events

DISORDER_MS: Final = 60_000
"""By how much events may be out of order: an instant is taken when an event arrives, its number when it is stored."""


def bounds(connection: Connection, *, after: int | None, before: int | None) -> tuple[int, int]:
    """The lowest and highest number that an event created between two instants (exclusive, Unix ms) can have.

    Some beyond the instants are among them: the exact comparison is still to be made.
    """
    low = 1 if after is None else _place(connection, after - DISORDER_MS)
    highest = connection.scalars(sa.select(sa.func.max(events.c.seq))).one() or 0
    return low, highest if before is None else min(highest, _place(connection, before + DISORDER_MS) - 1)


def _place(connection: Connection, instant: int) -> int:
    """The number of the first event created at an instant or later, by halving: no scan, however many there are."""
    # Two questions: SQLite answers each from the end of the tree, but both together by reading the whole of it.
    low = connection.scalar(sa.select(sa.func.min(events.c.seq)))
    if low is None:
        return 1
    high = (connection.scalar(sa.select(sa.func.max(events.c.seq))) or low) + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(
            sa.select(events.c.seq, events.c.created_at).where(events.c.seq >= middle).order_by(events.c.seq).limit(1)
        ).one()
        if row.created_at < instant:
            low = row.seq + 1
        else:
            high = middle
    return int(low)
