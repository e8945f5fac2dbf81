"""Converts a time range to a range of event numbers. Later events usually have higher numbers."""

from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import server_values
from uplift_server.store.schema import events

DISORDER_MS: Final = 60_000
"""The usual maximum delay in ms between an event's arrival and its storage.

The arrival sets the event's timestamp, and the storage sets its number. If an event has an earlier timestamp but a
higher number than another event, their timestamps differ by at most this time, unless the event is late (`LateEvents`).
"""
_LATE: Final = "events.late."


class LateEvents(NamedTuple):
    """The time range and the longest delay of late events.

    An event is late if it was stored more than DISORDER_MS after its timestamp, such as after a database outage.
    """

    since: int
    """The earliest timestamp of a late event (Unix ms)."""
    until: int
    """The time when the last late event was stored (Unix ms)."""
    delay_ms: int
    """The longest time in ms between a late event's timestamp and its storage."""

    def covers(self, other: "LateEvents") -> bool:
        """Return whether this time range contains the range of `other`, and the delay of `other` is not longer."""
        return self.since <= other.since and self.until >= other.until and self.delay_ms >= other.delay_ms


def late_events(connection: Connection) -> LateEvents | None:
    """Return the time range and longest delay of all recorded late events, or None if no event was late."""
    found = server_values.get(connection, [_LATE + name for name in LateEvents._fields])
    return LateEvents(*(found[_LATE + name] for name in LateEvents._fields)) if found else None


def note_late(connection: Connection, late: LateEvents) -> LateEvents:
    """Extend the recorded time range and delay to include `late`. Return the new values.

    Call this function before the events are stored. Otherwise, searches by time could miss the events.
    """
    server_values.lock(connection, _LATE)
    noted = late_events(connection)
    if noted is not None:
        late = LateEvents(
            min(noted.since, late.since), max(noted.until, late.until), max(noted.delay_ms, late.delay_ms)
        )
    server_values.replace(connection, _LATE, {_LATE + name: value for name, value in late._asdict().items()})
    return late


def bounds(connection: Connection, *, after: int | None, before: int | None) -> tuple[int, int]:
    """Return the range of event numbers for the events between two timestamps (exclusive, Unix ms).

    Events outside the time range can also have a number in this range. Therefore, the caller must compare timestamps
    too.
    """
    late = None if after is None and before is None else late_events(connection)
    low = 1 if after is None else _first_seq(connection, after - _disorder_ms(late, after))
    highest = connection.scalars(sa.select(sa.func.max(events.c.seq))).one() or 0
    if before is None:
        return low, highest
    return low, min(highest, _first_seq(connection, before + _disorder_ms(late, before)) - 1)


def _disorder_ms(late: LateEvents | None, at: int) -> int:
    """Return the maximum delay in ms between timestamp and storage for events with timestamps around `at` (Unix ms)."""
    is_near = late is not None and late.since - DISORDER_MS <= at <= late.until + DISORDER_MS
    return DISORDER_MS + late.delay_ms if late is not None and is_near else DISORDER_MS


def newest(connection: Connection) -> int | None:
    """Return the timestamp (Unix ms) of the event with the highest number."""
    query = sa.select(events.c.created_at).order_by(events.c.seq.desc()).limit(1)
    found: int | None = connection.scalars(query).first()
    return found


def created_from(connection: Connection, seq: int) -> int | None:
    """Return the timestamp (Unix ms) of the first event with this number or a higher one."""
    query = sa.select(events.c.created_at).where(events.c.seq >= seq).order_by(events.c.seq).limit(1)
    found: int | None = connection.scalars(query).first()
    return found


def _first_seq(connection: Connection, created_at: int) -> int:
    """Return the number of the first event with this timestamp (Unix ms) or a later one."""
    # Use two queries, because SQLite would scan the index for a query that selects both values.
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
