"""Housekeeping: what goes, what stays, and how much at a time."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from uplift_server.core.deliveries import Status
from uplift_server.store import schema_version
from uplift_server.store.schema import attempts, deliveries, events, idempotency_keys, idempotent_creates
from uplift_server.store.sqlite.connection import bound
from uplift_server.store.upkeep import Pruned, prune, prune_keys
from uplift_server.store.waiting import cancel_waiting

OLD, BEFORE, NEW = 1000, 2000, 3000


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sa.Connection]:
    """A connection to an empty database."""
    schema_version.upgrade(tmp_path / "uplift.db", now_ms=0)
    with closing(sqlite3.connect(tmp_path / "uplift.db", isolation_level=None)) as raw, bound(raw) as connection:
        yield connection


def event(
    connection: sa.Connection,
    seq: int,
    *statuses: Status,
    created_at: int = OLD,
    lease_owner: int = 0,
    resumes: Status = Status.PENDING,
) -> None:
    """An event with a delivery to endpoints 1, 2 … in each of these statuses, attempted once; pending: resent."""
    connection.execute(
        sa.insert(events).values(
            seq=seq, id=seq.to_bytes(16, "big"), account_seq=1, type_seq=1, created_at=created_at, body=b"{}"
        )
    )
    for endpoint, status in enumerate(statuses, 1):
        due_at = created_at if status is Status.PENDING else None
        connection.execute(
            sa.insert(deliveries).values(
                event_seq=seq,
                endpoint_seq=endpoint,
                account_seq=1,
                status=status,
                due_at=due_at,
                lease_owner=lease_owner,
                resume_status=resumes if status is Status.PENDING else None,
                resume_due_at=due_at,
            )
        )
        connection.execute(
            sa.insert(attempts).values(
                event_seq=seq,
                endpoint_seq=endpoint,
                number=1,
                trigger=0,
                started_at=created_at,
                duration_us=1,
                outcome=0,
                request_head=b"",
                body_truncated=False,
            )
        )


def seqs(connection: sa.Connection, column: sa.Column[int] = events.c.seq) -> list[int]:
    """The events that a table still speaks of."""
    return sorted(connection.scalars(sa.select(column)))


# ---- cancelling what a deleted endpoint has waiting


def test_what_waits_or_is_held_for_a_deleted_endpoint_is_cancelled(connection: sa.Connection) -> None:
    event(connection, 1, Status.PENDING, Status.PENDING)
    event(connection, 2, Status.HELD, Status.HELD)

    assert cancel_waiting(connection, 1, now=NEW, limit=10) == 2

    rows = connection.execute(sa.select(deliveries).where(deliveries.c.endpoint_seq == 1)).all()
    assert {(r.status, r.due_at, r.completed_at, r.resume_status, r.resume_due_at) for r in rows} == {
        (Status.CANCELLED, None, NEW, None, None)
    }
    others = connection.scalars(sa.select(deliveries.c.status).where(deliveries.c.endpoint_seq == 2))
    assert set(others) == {Status.PENDING, Status.HELD}


def test_what_had_ended_before_a_resend_stays_as_it_ended(connection: sa.Connection) -> None:
    event(connection, 1, Status.PENDING, resumes=Status.DELIVERED)
    event(connection, 2, Status.PENDING, resumes=Status.FAILED)

    assert cancel_waiting(connection, 1, now=NEW, limit=10) == 2

    rows = connection.execute(sa.select(deliveries).order_by(deliveries.c.event_seq)).all()
    assert [(row.status, row.due_at, row.resume_status) for row in rows] == [
        (Status.DELIVERED, None, None),
        (Status.FAILED, None, None),
    ]


def test_what_has_ended_or_is_being_attempted_is_left_alone(connection: sa.Connection) -> None:
    for seq, status in enumerate((Status.DELIVERED, Status.FAILED, Status.CANCELLED), 1):
        event(connection, seq, status)
    event(connection, 9, Status.PENDING, lease_owner=7)

    assert cancel_waiting(connection, 1, now=NEW, limit=10) == 0
    assert set(connection.scalars(sa.select(deliveries.c.completed_at))) == {None}


def test_cancelling_takes_a_bite_at_a_time(connection: sa.Connection) -> None:
    for seq in range(1, 6):
        event(connection, seq, Status.PENDING)

    assert [cancel_waiting(connection, 1, now=NEW, limit=2) for _ in range(4)] == [2, 2, 1, 0]


# ---- pruning events


def test_an_old_event_goes_with_everything_that_belongs_to_it(connection: sa.Connection) -> None:
    event(connection, 1, Status.DELIVERED, Status.FAILED, Status.CANCELLED)
    event(connection, 2, Status.DELIVERED, created_at=NEW)

    assert prune(connection, before=BEFORE, after_seq=0, limit=10) == Pruned(1, 1, done=True)

    assert seqs(connection) == [2]
    assert seqs(connection, deliveries.c.event_seq) == [2]
    assert seqs(connection, attempts.c.event_seq) == [2]


def test_the_newest_event_stays_however_old(connection: sa.Connection) -> None:
    """The next event's number follows on from it."""
    assert prune(connection, before=BEFORE, after_seq=0, limit=10) == Pruned(0, 0, done=True)
    event(connection, 1, Status.DELIVERED)
    event(connection, 2, Status.DELIVERED)

    assert prune(connection, before=BEFORE, after_seq=0, limit=10).events == 1
    assert prune(connection, before=BEFORE, after_seq=0, limit=10).events == 0
    assert seqs(connection) == [2]


def test_an_event_goes_only_at_the_instant_after_its_time(connection: sa.Connection) -> None:
    event(connection, 1, created_at=BEFORE)
    event(connection, 2, created_at=NEW)

    assert prune(connection, before=BEFORE, after_seq=0, limit=10).events == 0
    assert prune(connection, before=BEFORE + 1, after_seq=0, limit=10).events == 1


@pytest.mark.parametrize("status", [Status.PENDING, Status.HELD])
def test_an_event_that_somebody_may_still_get_stays_whole(connection: sa.Connection, status: Status) -> None:
    event(connection, 1, Status.DELIVERED, status)
    event(connection, 2, Status.DELIVERED)
    event(connection, 3, created_at=NEW)

    assert prune(connection, before=BEFORE, after_seq=0, limit=10) == Pruned(1, 2, done=True)

    assert seqs(connection) == [1, 3]
    assert seqs(connection, attempts.c.event_seq) == [1, 1]


def test_pruning_goes_on_behind_events_that_stay(connection: sa.Connection) -> None:
    """However many of the oldest must stay, the bites after them reach the others."""
    for seq in range(1, 5):
        event(connection, seq, Status.HELD)
    for seq in range(5, 8):
        event(connection, seq, Status.DELIVERED)
    event(connection, 8, created_at=NEW)

    bites, after = [], 0
    while True:
        pruned = prune(connection, before=BEFORE, after_seq=after, limit=2)
        bites.append((pruned.events, pruned.through_seq))
        after = pruned.through_seq
        if pruned.done:
            break

    assert bites == [(0, 2), (0, 4), (2, 6), (1, 7)]
    assert seqs(connection) == [1, 2, 3, 4, 8]


# ---- pruning keys


def key(connection: sa.Connection, table: sa.Table, name: str, created_at: int) -> None:
    """A remembered key."""
    values = {"account_seq": 1, "key": name, "created_at": created_at}
    if table is idempotency_keys:
        values |= {"event_seq": 1}
    else:
        values |= {"kind": "endpoint", "request_digest": b"", "object_id": b""}
    connection.execute(sa.insert(table).values(values))


@pytest.mark.parametrize("table", [idempotency_keys, idempotent_creates], ids=lambda table: table.name)
def test_old_keys_are_forgotten_a_bite_at_a_time(connection: sa.Connection, table: sa.Table) -> None:
    for number in range(5):
        key(connection, table, f"old{number}", OLD)
    key(connection, table, "edge", BEFORE)

    assert [prune_keys(connection, before=BEFORE, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert list(connection.scalars(sa.select(table.c.key))) == ["edge"]


def test_both_kinds_of_keys_count(connection: sa.Connection) -> None:
    key(connection, idempotency_keys, "a", OLD)
    key(connection, idempotent_creates, "a", OLD)

    assert prune_keys(connection, before=BEFORE, limit=5) == 2
