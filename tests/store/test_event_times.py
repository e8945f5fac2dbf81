"""Searches by time find events that were stored long after their timestamp, such as after an outage."""

import pytest
import sqlalchemy as sa

from uplift_server.store import event_times
from uplift_server.store import schema as tables
from uplift_server.store.event_times import LateEvents

MINUTE = 60_000
HOUR = 60 * MINUTE
START = 1_700_000_000_000


def insert(connection: sa.Connection, times: list[int]) -> None:
    """Store events with these timestamps, in this order."""
    for seq, created_at in enumerate(times, 1):
        row = {"seq": seq, "id": seq.to_bytes(16, "big"), "account_seq": 1, "type_seq": 1, "created_at": created_at}
        connection.execute(sa.insert(tables.events).values(**row, body=b"{}"))


def outage() -> list[int]:
    """Return the timestamps of events in the order of their storage. The outage lasts from hour 2 to hour 4."""
    before = [START + number * MINUTE for number in range(120)]
    late = [START + 2 * HOUR + number * MINUTE for number in range(120)]
    # The server's own events do not go through the stream, so they have the time of their storage.
    own = [START + 4 * HOUR + number * 100 for number in range(120)]
    mixed = [each for pair in zip(late, own, strict=True) for each in pair]
    return [*before, *mixed, *(START + 4 * HOUR + 10 * MINUTE + number * MINUTE for number in range(120))]


@pytest.mark.parametrize("minutes", [*range(0, 370, 7)])
def test_every_range_contains_its_events(connection: sa.Connection, minutes: int) -> None:
    times = outage()
    insert(connection, times)
    event_times.note_late(connection, LateEvents(START + 2 * HOUR, START + 4 * HOUR + MINUTE, 2 * HOUR + MINUTE))
    after = START + minutes * MINUTE - 1
    before = after + 20 * MINUTE
    low, high = event_times.bounds(connection, after=after, before=before)
    wanted = {seq for seq, created_at in enumerate(times, 1) if after < created_at < before}
    assert wanted <= set(range(low, high + 1))


def test_times_without_late_events_nearby_have_narrow_ranges(connection: sa.Connection) -> None:
    insert(connection, outage())
    noted = event_times.note_late(connection, LateEvents(START + 2 * HOUR, START + 4 * HOUR, 2 * HOUR))
    low, high = event_times.bounds(connection, after=START + 10 * MINUTE, before=START + 20 * MINUTE)
    assert high - low < 15
    low, high = event_times.bounds(connection, after=START + 5 * HOUR, before=START + 5 * HOUR + 10 * MINUTE)
    assert high - low < 15
    assert noted == event_times.late_events(connection)


def test_noted_late_events_grow(connection: sa.Connection) -> None:
    assert event_times.late_events(connection) is None
    first = event_times.note_late(connection, LateEvents(100, 200, 50))
    assert event_times.note_late(connection, LateEvents(150, 300, 20)) == LateEvents(100, 300, 50)
    assert LateEvents(100, 300, 50).covers(first)
    assert not first.covers(LateEvents(100, 201, 10))
