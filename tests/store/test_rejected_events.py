"""Rejected events: idempotent and bounded storage, filters, and pages without gaps."""

import pytest
import sqlalchemy as sa
from tests.rejected_events import PROBLEM, rejected_event

from uplift_server.core.events.rejected import stored_text
from uplift_server.store import accounts, rejected_events
from uplift_server.store.event_times import DISORDER_MS
from uplift_server.store.pages import PageRequest
from uplift_server.store.rejected_events import RejectedEventFilter
from uplift_server.store.schema_rejected_events import rejected_events as table

HOUR = 3_600_000
ALL = RejectedEventFilter()


def find_times(
    connection: sa.Connection, wanted: RejectedEventFilter = ALL, account_seq: int | None = 1, *, up: bool = False
) -> list[int]:
    """Return the timestamps of all matching rejected events, page by page."""
    times, key = [], None
    while True:
        page = rejected_events.page(connection, account_seq, wanted, PageRequest(2, key, up))
        times += [each.rejected_at for each in page.items]
        key = page.next_key
        if key is None:
            return times


def test_a_stored_event_is_returned_with_its_account(connection: sa.Connection) -> None:
    account = accounts.create(connection, account_id=b"i" * 16, name="a", contact_emails=(), now=1)
    rejected = rejected_event(account.seq, event_id="x", problem={**PROBLEM, "detail": "ü"})
    rejected_events.add(connection, rejected)

    found = rejected_events.get(connection, account.seq, rejected.id)
    assert found is not None
    assert (found.account_id, found.seq > 0, found.id) == (account.id, True, rejected.id)
    assert found.problem == rejected.problem
    names = ("account_seq", "subject", "event_type", "event_id", "idempotency_key", "size_bytes", "published_at")
    assert [getattr(found, name) for name in names] == [getattr(rejected, name) for name in names]
    assert rejected_events.page(connection, account.seq, ALL, PageRequest(10)).items == [found]
    assert rejected_events.get(connection, None, rejected.id) == found
    assert rejected_events.find(connection, [rejected.id, b"x"]) == [found]
    assert rejected_events.get(connection, account.seq + 1, rejected.id) is None


def test_a_message_is_stored_once(connection: sa.Connection) -> None:
    """A new stream starts numbering again, so a known number with a different time identifies another message."""
    rejected = rejected_event(1, at=HOUR)
    rejected_events.add(connection, rejected)
    rejected_events.add(
        connection, rejected_event(1, at=HOUR + 1, stream_seq=rejected.stream_seq, published_at=HOUR - 10)
    )
    assert find_times(connection) == [HOUR]
    rejected_events.add(connection, rejected_event(1, at=2 * HOUR, stream_seq=rejected.stream_seq))
    assert find_times(connection) == [2 * HOUR, HOUR]
    rejected_events.add(connection)
    assert find_times(connection) == [2 * HOUR, HOUR]


def test_texts_are_bounded_and_have_no_data(connection: sa.Connection) -> None:
    errors = [{"field": "data.object.email", "code": "schema_mismatch", "message": "'caleb@example.com' is too long"}]
    long = dict.fromkeys(("subject", "event_type", "event_id", "idempotency_key"), "\x00" + "x" * 1000)
    rejected_events.add(connection, rejected_event(1, problem={**PROBLEM, "errors": errors}, **long))

    [row] = connection.execute(sa.select(table)).all()
    assert "caleb" not in str(row)
    assert "data.object.email" in row.problem
    assert row.subject == "?" + "x" * 254 + "…"
    assert {row.event_type, row.event_id, row.idempotency_key} == {"?" + "x" * 126 + "…"}


def test_an_account_sees_only_its_own_rejected_events(connection: sa.Connection) -> None:
    rejected_events.add(connection, rejected_event(1, at=1), rejected_event(2, at=2), rejected_event(None, at=3))
    assert find_times(connection) == [1]
    assert find_times(connection, account_seq=None) == [3, 2, 1]
    assert find_times(connection, account_seq=None, up=True) == [1, 2, 3]
    assert [rejected_events.has_any(connection, account) for account in (1, 2, 3, None)] == [True, True, False, True]


def test_each_account_keeps_its_newest_rejected_events(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejected_events, "REJECTED_EVENTS_PER_ACCOUNT_MAX", 3)
    for at in range(1, 6):
        rejected_events.add(connection, rejected_event(1, at=at), rejected_event(None, at=10 + at))
    rejected_events.add(connection, rejected_event(2, at=20))
    assert find_times(connection) == [5, 4, 3]
    assert find_times(connection, account_seq=None) == [20, 15, 5, 14, 4, 13, 3]
    rejected_events.add(connection, *(rejected_event(1, at=at) for at in range(30, 36)))
    assert find_times(connection) == [35, 34, 33]


def test_a_time_range_finds_rows_out_of_order(connection: sa.Connection) -> None:
    """A timestamp is set before the row is stored, so numbers and timestamps can be in different order."""
    late = 3 * HOUR - DISORDER_MS
    for at in (HOUR, 3 * HOUR, late + 1, 3 * HOUR + 1, 3 * HOUR + DISORDER_MS, 9 * HOUR):
        rejected_events.add(connection, rejected_event(1, at=at))

    assert find_times(connection, RejectedEventFilter(since=late + 1, until=3 * HOUR)) == [late + 1]
    later = [9 * HOUR, 3 * HOUR + DISORDER_MS, 3 * HOUR + 1, 3 * HOUR]
    assert find_times(connection, RejectedEventFilter(since=3 * HOUR)) == later
    assert find_times(connection, RejectedEventFilter(until=HOUR + 1)) == [HOUR]
    assert find_times(connection, RejectedEventFilter(until=HOUR)) == []


def test_a_page_with_few_matches_ends_early_without_missing_any(
    connection: sa.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejected_events, "WINDOW_ROWS", 3)
    for at in range(1, 13):
        rejected_events.add(connection, rejected_event(1, at=at, event_type="rare" if at in (1, 6) else "x"))

    wanted = RejectedEventFilter(event_types=["rare"])
    first = rejected_events.page(connection, 1, wanted, PageRequest(2))
    assert (first.items, first.next_key is None) == ([], False)
    assert find_times(connection, wanted) == [6, 1]
    assert find_times(connection, wanted, up=True) == [1, 6]
    assert find_times(connection, RejectedEventFilter(event_types=["rare", "x"])) == list(range(12, 0, -1))


def test_a_count_is_bounded(connection: sa.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    rejected_events.add(connection, *(rejected_event(None, at=at) for at in range(1, 6)))
    assert [rejected_events.count_since(connection, at) for at in (1, 3, 6)] == [5, 3, 0]
    monkeypatch.setattr(rejected_events, "REJECTED_EVENTS_COUNTED_MAX", 2)
    assert rejected_events.count_since(connection, 1) == 2


def test_an_erasure_removes_keys_and_object_ids(connection: sa.Connection) -> None:
    long = "k" * 200
    keys = ("one", "two", long, "athlete_7-1", "athlete77")
    for key in keys:
        rejected_events.add(
            connection, *(rejected_event(account, idempotency_key=key, event_id="7") for account in (1, 2))
        )
    rejected_events.erase_keys(connection, 1, ["one", long])
    rejected_events.erase_object_id(connection, 1, "athlete_7")

    def stored(account: int) -> list[str | None]:
        query = sa.select(table.c.idempotency_key).where(table.c.account_seq == account).order_by(table.c.seq)
        return list(connection.scalars(query))

    assert stored(1) == [None, "two", None, None, "athlete77"]
    assert stored(2) == [stored_text(key) for key in keys]
    rejected_events.erase_object_id(connection, 1, "7")
    assert set(connection.scalars(sa.select(table.c.event_id).where(table.c.account_seq == 1))) == {None}
