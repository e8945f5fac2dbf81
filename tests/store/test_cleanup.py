"""Cancellation of deliveries of deleted endpoints, and retention: deleted rows, kept rows, and batch sizes."""

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from uplift_server.core.lifecycle import Status
from uplift_server.core.operations.statistics import HOUR_MS
from uplift_server.store.cleanup import RETENTION_RULES, RetentionRule, delete_expired, find_expired
from uplift_server.store.endpoint_backlog import cancel_waiting
from uplift_server.store.event_objects import object_key
from uplift_server.store.schema import (
    accounts,
    api_keys,
    attempts,
    audit_log,
    deliveries,
    endpoints,
    event_types,
    events,
    idempotency_keys,
    idempotent_creates,
    marks,
    metadata,
    notices,
    replays,
    service_keys,
)
from uplift_server.store.schema_erasures import erasures
from uplift_server.store.schema_objects import event_objects
from uplift_server.store.schema_people import invitations, links, sessions
from uplift_server.store.schema_rejected_events import rejected_events
from uplift_server.store.schema_statistics import rollups
from uplift_server.store.statistics import ATTEMPTS_COUNTED, EVENTS_COUNTED

OLD, BEFORE, NEW = 1000, 2000, 3000


@pytest.fixture
def connection(connection: sa.Connection) -> sa.Connection:
    """A connection to an empty database. The statistics are marked as having counted all rows that a test adds."""
    connection.execute(
        sa.insert(marks), [{"name": name, "value": 10**9} for name in (EVENTS_COUNTED, ATTEMPTS_COUNTED)]
    )
    return connection


def event(
    connection: sa.Connection,
    seq: int,
    *statuses: Status,
    created_at: int = OLD,
    lease_owner: int = 0,
    resumes: Status = Status.PENDING,
) -> None:
    """Store an event with a delivery in each status, to endpoints 1, 2 …, attempted once. Pending ones are resends."""
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
    """Return the event numbers in a column, by default those of all events."""
    return sorted(connection.scalars(sa.select(column)))


# ---- deliveries of deleted endpoints


def test_waiting_and_held_deliveries_of_a_deleted_endpoint_are_cancelled(connection: sa.Connection) -> None:
    event(connection, 1, Status.PENDING, Status.PENDING)
    event(connection, 2, Status.HELD, Status.HELD)

    assert cancel_waiting(connection, 1, now=NEW, limit=10) == 2

    rows = connection.execute(sa.select(deliveries).where(deliveries.c.endpoint_seq == 1)).all()
    assert {(r.status, r.due_at, r.completed_at, r.resume_status, r.resume_due_at) for r in rows} == {
        (Status.CANCELLED, None, NEW, None, None)
    }
    others = connection.scalars(sa.select(deliveries.c.status).where(deliveries.c.endpoint_seq == 2))
    assert set(others) == {Status.PENDING, Status.HELD}


def test_a_resent_delivery_returns_to_its_final_status(connection: sa.Connection) -> None:
    event(connection, 1, Status.PENDING, resumes=Status.DELIVERED)
    event(connection, 2, Status.PENDING, resumes=Status.FAILED)

    assert cancel_waiting(connection, 1, now=NEW, limit=10) == 2

    rows = connection.execute(sa.select(deliveries).order_by(deliveries.c.event_seq)).all()
    assert [(insert.status, insert.due_at, insert.resume_status) for insert in rows] == [
        (Status.DELIVERED, None, None),
        (Status.FAILED, None, None),
    ]


def test_ended_and_leased_deliveries_are_not_cancelled(connection: sa.Connection) -> None:
    for seq, status in enumerate((Status.DELIVERED, Status.FAILED, Status.CANCELLED), 1):
        event(connection, seq, status)
    event(connection, 9, Status.PENDING, lease_owner=7)

    assert cancel_waiting(connection, 1, now=NEW, limit=10) == 0
    assert set(connection.scalars(sa.select(deliveries.c.completed_at))) == {None}


def test_deliveries_are_cancelled_in_batches(connection: sa.Connection) -> None:
    for seq in range(1, 6):
        event(connection, seq, Status.PENDING)

    assert [cancel_waiting(connection, 1, now=NEW, limit=2) for _ in range(4)] == [2, 2, 1, 0]


# ---- retention

KINDS = {kept.name: kept for kept in RETENTION_RULES}


def delete_batch(
    connection: sa.Connection, kept: RetentionRule, after: Any = None, rows: int = 10
) -> tuple[int, Any, bool]:
    """Find and delete a batch. Return the number of deleted rows, the position, and whether more rows may follow."""
    batch = find_expired(connection, replace(kept, batch_rows=rows), before=BEFORE, after=after)
    return delete_expired(connection, kept, batch.keys, before=BEFORE), batch.position, batch.has_more


def delete_batches(connection: sa.Connection, kept: RetentionRule, rows: int) -> list[int]:
    """Return the number of deleted rows of each batch."""
    counts, after, more = [], None, True
    while more:
        count, after, more = delete_batch(connection, kept, after, rows)
        counts.append(count)
    return counts


def prune(connection: sa.Connection) -> dict[str, int]:
    """Run all rules. Return the number of deleted rows by table."""
    counts = {kept.name: sum(delete_batches(connection, kept, rows=3)) for kept in RETENTION_RULES}
    return {name: count for name, count in counts.items() if count}


def insert(connection: sa.Connection, table: sa.Table, number: int = 1, **values: Any) -> None:
    """Store a row of any table with neutral default values."""
    filled: dict[str, Any] = {}
    for column in table.c:
        if column.name == "seq":
            filled[column.key] = number
        elif isinstance(column.type, sa.LargeBinary) and not column.nullable:
            filled[column.key] = number.to_bytes(16, "big")
        elif column.unique or column.primary_key:
            filled[column.key] = number if isinstance(column.type, sa.Integer) else str(number)
        elif not column.nullable and column.server_default is None:
            filled[column.key] = "" if isinstance(column.type, sa.Text) else 0
    filled |= values
    connection.execute(sa.insert(table).values(filled))


REQUIRED_VALUES = {
    "idempotency_keys": {"account_seq": 1, "event_seq": 1},
    "idempotent_creates": {"account_seq": 1},
    "events": {"account_seq": 1, "type_seq": 1},
}
"""For each table: column values that `add_row` sets instead of the default values of `insert`."""


def add_row(connection: sa.Connection, kept: RetentionRule, number: int, at: int | None) -> None:
    """Store an unreferenced row whose retention starts at a time."""
    since = None if at is None else at - kept.extra_ms
    insert(connection, kept.table, number, **{**REQUIRED_VALUES.get(kept.name, {}), kept.since.name: since})


def remaining(connection: sa.Connection, table: sa.Table) -> list[Any]:
    """Return the last key column of each remaining row of a table, in ascending order."""
    return sorted(connection.scalars(sa.select(list(table.primary_key)[-1])))


def test_every_growing_table_has_a_retention_rule() -> None:
    """A new table needs a retention rule, or an entry in one of the sets below."""
    deleted_with_events = {column.table.name for kept in RETENTION_RULES for column in kept.children}
    kept_forever = {"marks"}
    deleted_with_accounts = {
        "people",
        "members",
        "identities",
        "second_factors",
        "recovery_codes",
    }  # people without a membership are deleted at once
    deleted_by_relay = {"listen_sessions", "listen_answers"}  # a day after their last use; a thousand responses each
    deleted_when_counted = {"delivery_changes", "minute_rollups"}  # after 90 minutes
    bounded_by_processes = {"processes", "duties", "directory_changes"}  # a row for each process, job and cached object
    # A row for each endpoint with open deliveries, or with failed ones since the last operational event.
    bounded_by_endpoints = {"delivery_totals", "failed_deliveries"}
    deleted_when_sent = {"operational_events"}  # within seconds
    bounded_by_number = {"told_texts"}  # by the process that adds more
    deleted_after_execution = {"commands"}  # a minute after their execution; at most COMMANDS_WAITING_MAX
    deleted_with_partitions = {"event_partitions"}
    known = (
        set(KINDS)
        | deleted_with_partitions
        | bounded_by_number
        | bounded_by_endpoints
        | deleted_when_sent
        | deleted_after_execution
        | deleted_with_events
        | {event_objects.name}
        | kept_forever
        | deleted_with_accounts
        | deleted_by_relay
        | deleted_when_counted
        | bounded_by_processes
    )
    assert known == set(metadata.tables)


@pytest.mark.parametrize("kept", RETENTION_RULES, ids=KINDS)
def test_expired_rows_are_deleted_in_batches(connection: sa.Connection, kept: RetentionRule) -> None:
    for number in range(1, 6):
        add_row(connection, kept, number, OLD)
    add_row(connection, kept, 6, BEFORE)
    add_row(connection, kept, 7, NEW)

    assert delete_batches(connection, kept, rows=2) == [2, 2, 1]
    assert len(remaining(connection, kept.table)) == 2
    assert delete_batches(connection, kept, rows=2) == [0]


@pytest.mark.parametrize("kept", [kept for kept in RETENTION_RULES if kept.since.nullable], ids=lambda kept: kept.name)
def test_rows_in_use_stay(connection: sa.Connection, kept: RetentionRule) -> None:
    add_row(connection, kept, 1, None)
    add_row(connection, kept, 2, NEW)
    assert prune(connection) == {}


@pytest.mark.parametrize(
    "kept", [kept for kept in RETENTION_RULES if "seq" in kept.table.c], ids=lambda kept: kept.name
)
def test_numbers_are_never_reused(connection: sa.Connection, kept: RetentionRule) -> None:
    """The newest row stays, because the next number follows it."""
    assert prune(connection) == {}
    for number in (1, 2):
        add_row(connection, kept, number, OLD)

    assert prune(connection) == {kept.name: 1}
    assert prune(connection) == {}
    assert remaining(connection, kept.table) == [2]


def test_an_expired_event_is_deleted_with_its_children(connection: sa.Connection) -> None:
    event(connection, 1, Status.DELIVERED, Status.FAILED, Status.CANCELLED)
    event(connection, 2, Status.DELIVERED, created_at=NEW)
    connection.execute(sa.update(events).values(object_id="a"))
    keys = [{"first_seq": 0, "object_key": object_key(1, "a"), "event_seq": seq} for seq in (1, 2)]
    connection.execute(sa.insert(event_objects), keys)

    assert delete_batch(connection, KINDS["events"]) == (1, (1,), False)

    assert seqs(connection) == [2]
    assert seqs(connection, deliveries.c.event_seq) == [2]
    assert seqs(connection, attempts.c.event_seq) == [2]
    assert seqs(connection, event_objects.c.event_seq) == [2]


@pytest.mark.parametrize("status", [Status.PENDING, Status.HELD])
def test_an_event_with_open_deliveries_stays_complete(connection: sa.Connection, status: Status) -> None:
    event(connection, 1, Status.DELIVERED, status)
    event(connection, 2, Status.DELIVERED)
    event(connection, 3, created_at=NEW)

    assert delete_batch(connection, KINDS["events"]) == (1, (2,), False)

    assert seqs(connection) == [1, 3]
    assert seqs(connection, attempts.c.event_seq) == [1, 1]


def test_an_event_that_is_resent_before_its_deletion_stays(connection: sa.Connection) -> None:
    event(connection, 1, Status.DELIVERED)
    event(connection, 2, Status.FAILED)
    event(connection, 3, created_at=NEW)
    batch = find_expired(connection, KINDS["events"], before=BEFORE, after=None)
    assert batch.keys == [(1,), (2,)]
    connection.execute(sa.update(deliveries).where(deliveries.c.event_seq == 2).values(status=Status.PENDING))

    assert delete_expired(connection, KINDS["events"], batch.keys, before=BEFORE) == 1
    assert seqs(connection) == [2, 3]
    assert seqs(connection, attempts.c.event_seq) == [2]


def test_a_type_that_is_created_again_before_its_deletion_stays(connection: sa.Connection) -> None:
    kept = KINDS["event_types"]
    add_row(connection, kept, 1, OLD)
    add_row(connection, kept, 2, NEW)
    batch = find_expired(connection, replace(kept, batch_rows=2), before=BEFORE, after=None)
    connection.execute(sa.update(event_types).where(event_types.c.seq == 1).values(deleted_at=None))

    assert delete_expired(connection, kept, batch.keys, before=BEFORE) == 0


def test_cleanup_continues_after_events_that_stay(connection: sa.Connection) -> None:
    """Batches in which every event stays do not end the cleanup, so it reaches the expired events behind them."""
    for seq in range(1, 5):
        event(connection, seq, Status.HELD)
    for seq in range(5, 8):
        event(connection, seq, Status.DELIVERED)
    event(connection, 8, created_at=NEW)

    assert delete_batches(connection, KINDS["events"], rows=2) == [0, 0, 2, 1]
    assert seqs(connection) == [1, 2, 3, 4, 8]


@pytest.mark.parametrize(
    "kept", [kept for kept in RETENTION_RULES if not kept.is_ordered_by_seq], ids=lambda kept: kept.name
)
def test_rows_with_one_timestamp_are_read_in_the_order_of_their_keys(
    connection: sa.Connection, kept: RetentionRule
) -> None:
    for number in range(1, 6):
        add_row(connection, kept, number, OLD)
    batch, after, more = [], None, True
    while more:
        found = find_expired(connection, replace(kept, batch_rows=2), before=BEFORE, after=after)
        batch += found.keys
        after, more = found.position, found.has_more

    assert len(batch) == len(set(batch)) == (4 if "seq" in kept.table.c else 5)


def test_an_unsent_email_stays(connection: sa.Connection) -> None:
    insert(connection, notices, 1, created_at=OLD, due_at=NEW)
    insert(connection, notices, 2, created_at=OLD)
    insert(connection, notices, 3, created_at=NEW, due_at=NEW)
    assert prune(connection) == {"notices": 1}
    assert remaining(connection, notices) == [1, 3]


REFERENCES = {
    "replays": [(deliveries, {"event_seq": 1, "endpoint_seq": 1, "replay_seq": 1})],
    "endpoints": [(deliveries, {"event_seq": 1, "endpoint_seq": 1}), (replays, {"endpoint_seq": 1})],
    "event_types": [(events, {"account_seq": 8, "type_seq": 1, "created_at": NEW})],
    "accounts": [
        (events, {"account_seq": 1, "type_seq": 1, "created_at": NEW}),
        (endpoints, {"account_seq": 1}),
        (api_keys, {"account_seq": 1}),
        (replays, {"account_seq": 1}),
        (audit_log, {"account_seq": 1, "at": NEW}),
        (erasures, {"account_seq": 1}),
        (rejected_events, {"account_seq": 1, "rejected_at": NEW}),
        (idempotency_keys, {"account_seq": 1, "event_seq": 1, "created_at": NEW}),
        (idempotent_creates, {"account_seq": 1, "created_at": NEW}),
    ],
}


@pytest.mark.parametrize(
    ("name", "table", "values"),
    [(name, *reference) for name, references in REFERENCES.items() for reference in references],
    ids=lambda value: value.name if isinstance(value, sa.Table) else value if isinstance(value, str) else "",
)
def test_referenced_rows_stay(connection: sa.Connection, name: str, table: sa.Table, values: dict[str, Any]) -> None:
    kept = KINDS[name]
    insert(connection, accounts, 8)
    for number in (1, 2):
        add_row(connection, kept, number, OLD)
    add_row(connection, kept, 9, NEW)
    insert(connection, table, **values)

    assert delete_batch(connection, kept)[0] == 1
    assert 1 in remaining(connection, kept.table)
    connection.execute(sa.delete(table))
    assert delete_batch(connection, kept)[0] == 1
    assert 1 not in remaining(connection, kept.table)


def test_receipts_are_kept_as_long_as_their_account(connection: sa.Connection) -> None:
    for number, deleted_at in ((1, OLD), (2, None), (3, None)):
        insert(connection, accounts, number, deleted_at=deleted_at)
        insert(connection, erasures, number, account_seq=number, completed_at=OLD)
    assert delete_batch(connection, KINDS["erasures"])[0] == 1
    assert remaining(connection, erasures) == [2, 3]


def test_references_are_deleted_first(connection: sa.Connection) -> None:
    """One pass deletes an expired account with its objects."""
    for number, at in ((1, OLD), (2, None)):
        insert(connection, accounts, number, deleted_at=at)
        insert(connection, api_keys, number, account_seq=number, revoked_at=at)
        insert(connection, service_keys, number, revoked_at=at)
        insert(connection, event_types, number, deleted_at=at)
        insert(connection, endpoints, number, account_seq=number, deleted_at=at)
        insert(connection, events, number, account_seq=number, type_seq=number, created_at=at or NEW)
        insert(
            connection, deliveries, event_seq=number, endpoint_seq=number, account_seq=number, status=Status.CANCELLED
        )
        insert(connection, replays, number, account_seq=number, endpoint_seq=number, completed_at=at)
        insert(connection, audit_log, number, account_seq=number, at=at or NEW)
        insert(connection, erasures, number, account_seq=number, completed_at=at)
        insert(connection, rejected_events, number, account_seq=number, rejected_at=at or NEW)
        insert(connection, idempotency_keys, number, account_seq=number, event_seq=number, created_at=at or NEW)
        insert(connection, idempotent_creates, number, account_seq=number, created_at=at or NEW)
        insert(connection, notices, number, account_seq=number, created_at=at or NEW)
        insert(connection, sessions, number, account_seq=number, ends_at=at or NEW)
        insert(connection, links, number, account_seq=number, expires_at=at or NEW)
        insert(connection, invitations, number, account_seq=number, expires_at=at or NEW)
        insert(connection, rollups, number, at=(at or NEW) - HOUR_MS)

    assert prune(connection) == dict.fromkeys(KINDS, 1)
    for table in (kept.table for kept in RETENTION_RULES):
        assert len(remaining(connection, table)) == 1
    assert seqs(connection, deliveries.c.event_seq) == [2]
