"""The event numbers of a time range. Numbers grow with time."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.schema import events

DISORDER_MS: Final = 60_000
"""Maximum delay between the timestamp of an event, set on arrival, and its number, assigned when it is stored. The two
orders can differ by this much.
"""


def bounds(connection: Connection, *, after: int | None, before: int | None) -> tuple[int, int]:
    """Return the lowest and highest number that an event between two timestamps (exclusive, Unix ms) can have.

    The range can contain other events, so also compare the timestamps.
    """
    low = 1 if after is None else _first_seq(connection, after - DISORDER_MS)
    highest = connection.scalars(sa.select(sa.func.max(events.c.seq))).one() or 0
    return low, highest if before is None else min(highest, _first_seq(connection, before + DISORDER_MS) - 1)


def newest(connection: Connection) -> int | None:
    """Return the timestamp of the event with the highest number."""
    query = sa.select(events.c.created_at).order_by(events.c.seq.desc()).limit(1)
    found: int | None = connection.scalars(query).first()
    return found


def created_from(connection: Connection, seq: int) -> int | None:
    """Return the timestamp of the first event with this number or a higher one."""
    query = sa.select(events.c.created_at).where(events.c.seq >= seq).order_by(events.c.seq).limit(1)
    found: int | None = connection.scalars(query).first()
    return found


def _first_seq(connection: Connection, created_at: int) -> int:
    """Return the number of the first event created at a timestamp or later, by binary search."""
    # Two queries, because SQLite reads each value from an end of the index but scans the index for both together.
    low = connection.scalar(sa.select(sa.func.min(events.c.seq)))
    if low is None:
        return 1
    high = (connection.scalar(sa.select(sa.func.max(events.c.seq))) or low) + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(
            sa.select(events.c.seq, events.c.created_at).where(events.c.seq >= middle).order_by(events.c.seq).limit(1)
        ).one()
        if row.created_at < created_at:
            low = row.seq + 1
        else:
            high = middle
    return int(low)
