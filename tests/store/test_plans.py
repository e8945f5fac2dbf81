"""According to SQLite's query plans, no query scans or sorts a whole table."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.rejected_events import rejected_event

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.core.people.notifications import NotificationState
from uplift_server.core.security.rights import Role
from uplift_server.store import (
    accounts,
    attempts,
    audit,
    backlog,
    changes,
    cleanup,
    database_state,
    deliveries,
    endpoint_backlog,
    endpoints,
    erased_content,
    erasures,
    event_objects,
    event_times,
    event_types,
    events,
    idempotency,
    identities,
    invitations,
    keys,
    listening,
    members,
    outbox,
    people,
    rejected_events,
    releases,
    replays,
    schema_version,
    second_factors,
    sessions,
    statistics,
    test_deliveries,
    totals,
    trace_parents,
)
from uplift_server.store.audit import AuditFilter
from uplift_server.store.hot_records import ReplayBatch, ReplayLease
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import DeliveryFilter, EndpointFilter, EventFilter
from uplift_server.store.replays import MissingEvents, ReplaySelection
from uplift_server.store.sqlite.connection import bound
from uplift_server.store.sqlite.replay import read_replay_batch, release_replay
from uplift_server.store.sqlite.writer import WriterConnection
from uplift_server.store.stream_position import STREAM_POSITION_MAX

Verb = Callable[[sa.Connection], Any]
SPAN = {"created_after": 5, "created_before": 90_000_000}


ERASURE = erasures.Erasure(
    seq=1, id=b"e", account_seq=1, account_id=b"x", object_id="o", object_digest="d", event_seqs=None, missing=0,
    position=0, scanned_through=0, last_event_seq=8, events=0, leases_until=None, tidied_at=None, created_at=1,
    completed_at=None,
)  # fmt: skip


def stream_events(connection: sa.Connection, unwanted: list[int]) -> object:
    return listening.next_events(
        connection, 1, unwanted, STREAM_POSITION_MAX, after=0, limit=9, body_bytes_max=9999, now=9
    )  # fmt: skip


LIST_VERBS: dict[str, Verb] = {
    "accounts": lambda c: accounts.page(c, PageRequest(50, (9,))),
    "accounts live": lambda c: accounts.list_live(c, after=3),
    "account, even deleted": lambda c: accounts.get_including_deleted(c, b"x"),
    "account": lambda c: accounts.get(c, b"x"),
    "keys": lambda c: keys.page(c, 1, PageRequest(50, (9,))),
    "keys live": lambda c: keys.list_live(c, after=3),
    "key": lambda c: keys.get(c, 1, b"x"),
    "newest changes of an account": lambda c: changes.newest_seqs(c, 1),
    "hourly counts of an account": lambda c: changes.hourly_counts(c, 1),
    "listen sessions": lambda c: changes.listen_sessions_seen(c, 1),
    "stream events": lambda c: stream_events(c, []),
    "stream events of few types": lambda c: stream_events(c, list(range(2, 40))),
    "unfinished replays of an account": lambda c: changes.unfinished_replays(c, 1),
    "endpoints by their numbers": lambda c: endpoints.find(c, [1, 2]),
    "person": lambda c: people.find(c, "x"),
    "person by id": lambda c: people.find_by_id(c, b"x"),
    "memberships of a person": lambda c: people.memberships(c, 1),
    "members": lambda c: members.page(c, 1, PageRequest(50, (9,))),
    "member": lambda c: members.get(c, 1, b"x"),
    "member with an address": lambda c: members.find(c, 1, "x"),
    "member who is a person": lambda c: members.find_by_person(c, 1, 1),
    "guest": lambda c: members.find_guest(c, 1, Role.MEMBER),
    "other owner": lambda c: members.has_other_owner(c, members.get(c, 1, b"m")),
    "session": lambda c: sessions.get(c, b"x"),
    "ID token of a session": lambda c: sessions.id_token(c, b"x"),
    "person with an identity": lambda c: identities.find_person(c, "x", "y"),
    "second factor": lambda c: second_factors.get(c, b"x"),
    "recovery codes": lambda c: second_factors.count_recovery_codes(c, b"x"),
    "invitations to an email": lambda c: invitations.list_for_email(c, "x", now=1, limit=20),
    "link": lambda c: sessions.get_link(c, b"x"),
    "event type": lambda c: event_types.get(c, "x"),
    "endpoints": lambda c: endpoints.page(c, 1, EndpointFilter(), PageRequest(50, (9,))),
    "endpoints of all": lambda c: endpoints.page(c, None, EndpointFilter(text="a"), PageRequest(50, (9,))),
    "endpoints with ids": lambda c: endpoints.page(c, 1, EndpointFilter(ids=(b"x", b"y")), PageRequest(50, (9,))),
    "endpoints of all by event type": lambda c: endpoints.page(
        c, None, EndpointFilter(patterns=("a.b", "a.*")), PageRequest(50, (9,))
    ),
    "endpoint, even deleted": lambda c: endpoints.get_including_deleted(c, b"x"),
    "endpoint": lambda c: endpoints.get(c, 1, b"x"),
    "events": lambda c: events.page(c, 1, EventFilter(), PageRequest(50, (9,))),
    "events of a type": lambda c: events.page(c, 1, EventFilter((1,), **SPAN), PageRequest(50, (9,))),
    "events of all": lambda c: events.page(c, None, EventFilter(), PageRequest(50, (9,))),
    "events of two types": lambda c: events.page(c, 1, EventFilter((1, 2), **SPAN), PageRequest(50, (9,))),
    "events of two types, forward": lambda c: events.page_forward(
        c, 1, EventFilter((1, 2)), STREAM_POSITION_MAX, PageRequest(50, (1,), ascending=True)
    ),
    "events with ids and bodies": lambda c: events.page(
        c, 1, EventFilter(ids=(b"\x01", b"\x02")), PageRequest(50, (9,)), with_bodies=True
    ),
    "events of all with ids": lambda c: events.page(c, None, EventFilter(ids=(b"\x01",)), PageRequest(50)),
    "events of all, of a type": lambda c: events.page(c, None, EventFilter((1,)), PageRequest(50, (9,))),
    "events about an object": lambda c: events.page(c, 1, EventFilter(object_id="o"), PageRequest(50, (9,))),
    "events of all about an object": lambda c: events.page(c, None, EventFilter(object_id="o"), PageRequest(50)),
    "events, only tests": lambda c: events.page(c, 1, EventFilter(is_test=True), PageRequest(50, (9,))),
    "events of all, no tests": lambda c: events.page(c, None, EventFilter(is_test=False), PageRequest(50, (9,))),
    "events about an object, forward": lambda c: events.page_forward(
        c, 1, EventFilter((1,), object_id="o"), STREAM_POSITION_MAX, PageRequest(50, (1,), ascending=True)
    ),
    "endpoints of an event": lambda c: deliveries.endpoints_of_event(c, 1),
    "events forward": lambda c: events.page_forward(
        c, 1, EventFilter(), STREAM_POSITION_MAX, PageRequest(50, (1,), ascending=True)
    ),
    "events of a type forward": lambda c: events.page_forward(
        c, 1, EventFilter((1,)), STREAM_POSITION_MAX, PageRequest(50, (1,), ascending=True)
    ),
    "events of all forward": lambda c: events.page_forward(
        c, None, EventFilter(), STREAM_POSITION_MAX, PageRequest(50, (1,), ascending=True)
    ),
    "event": lambda c: events.find(c, 1, b"\x01"),
    "events between ids": lambda c: events.find_in_id_range(c, 1, b"\x01", b"\xff", limit=50),
    "event of any account": lambda c: events.find(c, None, b"\x01"),
    "events of all with an id": lambda c: events.find_in_all_accounts(c, b"\x01", limit=5),
    "events of all under a key": lambda c: events.find_by_idempotency_key(c, "k", limit=5),
    "event times": lambda c: event_times.bounds(c, after=5, before=90_000_000),
    "delivery": lambda c: deliveries.find(c, 1, b"x", b"y"),
    "delivery of any account": lambda c: deliveries.find(c, None, b"x", b"y"),
    "deliveries with keys": lambda c: deliveries.find_by_keys(c, [(1, 1), (2, 1)]),
    "deliveries of an event": lambda c: deliveries.page_of_event(c, 1, PageRequest(50, (9,))),
    "attempts": lambda c: attempts.page_of_delivery(c, 1, 1, PageRequest(50, (9,))),
    "audit log": lambda c: audit.page(c, 1, AuditFilter(**SPAN), PageRequest(50, (9,))),
    "audit log, an actor's": lambda c: audit.page(c, 1, AuditFilter("key_1", "key.created"), PageRequest(50)),
    "audit log, upward": lambda c: audit.page(c, 1, AuditFilter(**SPAN), PageRequest(50, (1,), ascending=True)),
    "endpoints, upward": lambda c: endpoints.page(c, 1, EndpointFilter(), PageRequest(50, (1,), ascending=True)),
    "replays, upward": lambda c: replays.page(c, 1, PageRequest(50, (1,), ascending=True)),
    "audit log of all": lambda c: audit.page(c, None, AuditFilter(**SPAN), PageRequest(50, (9,))),
    "attempt": lambda c: attempts.get(c, 1, 1, 1),
    "test's outcome": lambda c: test_deliveries.get_result(c, 1, b"x", b"y"),
    "held counts": lambda c: endpoint_backlog.held_counts(c, [1], limit=9, inactive=[1]),
    "traces of events": lambda c: trace_parents.of_events(c, [b"\x01", b"\x02"]),
    "statistics": lambda c: statistics.by_bucket(c, [statistics.ALL_ACCOUNTS, statistics.Scope(1, 1)], since=5),
    "statistics by minute": lambda c: statistics.by_bucket(c, [statistics.Scope(1, 1)], since=5, minutes=True),
    "open deliveries": lambda c: totals.read(c, [1, 2]),
    "statistics, counted": lambda c: statistics.count(c, STREAM_POSITION_MAX, now=0, rows=9, changes=9),
    "emails due": lambda c: outbox.due(c, now=9, limit=20),
    "outbox": lambda c: outbox.page(c, None, limit=50, before=(9,)),
    "outbox, failed": lambda c: outbox.page(c, NotificationState.GIVEN_UP, limit=50, before=(9,)),
    "outbox, waiting": lambda c: outbox.page(c, NotificationState.WAITING, limit=50, before=(9, 9)),
    "rejected events": lambda c: rejected_events.page(
        c, 1, rejected_events.RejectedEventFilter(), PageRequest(50, (9,))
    ),
    "rejected events of all accounts": lambda c: rejected_events.page(
        c, None, rejected_events.RejectedEventFilter(["x"], "e", "k", 5, 90_000_000), PageRequest(50, (9,))
    ),
    "rejected event": lambda c: rejected_events.get(c, 1, b"e"),
    "rejected events with these IDs": lambda c: rejected_events.find(c, [b"e", b"f"]),
    "rejected events, counted": lambda c: rejected_events.count_since(c, 9),
    "rejected events of an account, any": lambda c: rejected_events.has_any(c, 1),
    "rejected events, any": lambda c: rejected_events.has_any(c, None),
    "rejected events, added": lambda c: rejected_events.add(c, rejected_event(1), rejected_event(None)),
    "rejected events, key erased": lambda c: rejected_events.erase_keys(c, 1, ["x"]),
    "rejected events, object ID erased": lambda c: rejected_events.erase_object_id(c, 1, "x"),
    "erasures": lambda c: erasures.page(c, 1, PageRequest(50, (9,))),
    "erasure": lambda c: erasures.get(c, 1, b"e"),
    "erasures unfinished": lambda c: erasures.unfinished(c, limit=9),
    "erasure, step": lambda c: erased_content.erase(c, ERASURE, [1], position=1, scanned_through=0, now=9),
    "events to erase": lambda c: erasures.find_seqs(c, 1, [b"\x01", b"\x02"]),
    "events to erase, counted": lambda c: erasures.count_about(c, 1, "o", last=8),
    "erasure, next events": lambda c: erasures.next_step(c, ERASURE),
    "erasure, next unchecked events": lambda c: erasures.next_step(c, replace(ERASURE, position=8)),
    "replays": lambda c: replays.page(c, 1, PageRequest(50, (9,))),
    "replays of all": lambda c: replays.page(c, None, PageRequest(50, (9,))),
    "replay": lambda c: replays.get(c, 1, b"r"),
    "replays unfinished": lambda c: replays.unfinished(c, after=(1, 0)),
    "replay, counted": lambda c: releases.count(c, CHOICE, first=2, last=8, rows=3),
    "replay, of types": lambda c: releases.count(c, replace(CHOICE, type_seqs=(1,), **SPAN), first=2, last=8, rows=3),
    "replay, with missing events": lambda c: releases.count(
        c, replace(CHOICE, missing=MissingEvents(1, (1,)), **SPAN), first=2, last=8, rows=3
    ),
    "replay, returned": lambda c: replays.return_unattempted(c, 1),
    "repeat": lambda c: idempotency.create_once(
        c, idempotency.Request(1, "k", "x", b""), object_id=b"", now=1, create=lambda: 1, load=lambda _: 1
    ),
}
CHOICE = ReplaySelection(1, (Status.FAILED,), (), None, None, 90_000_000)
FILTERS = {
    "": DeliveryFilter(),
    "in a period": DeliveryFilter(**SPAN),
    "pending": DeliveryFilter((Status.PENDING,)),
    "failed": DeliveryFilter((Status.FAILED,)),
    "failed or held": DeliveryFilter((Status.FAILED, Status.HELD), is_test=False),
    "held, of a type": DeliveryFilter((Status.HELD,), type_seqs=(1,), **SPAN),
    "of a type": DeliveryFilter(type_seqs=(1,)),
    "tests": DeliveryFilter(is_test=True),
    "of two types": DeliveryFilter(type_seqs=(1, 2)),
    "to an endpoint": DeliveryFilter(endpoint_seqs=(1,)),
    "to two endpoints": DeliveryFilter(endpoint_seqs=(1, 2)),
    "to an endpoint, failed, of a type": DeliveryFilter((Status.FAILED,), (1,), (1,), **SPAN),
    "with an outcome": DeliveryFilter(outcomes=(Outcome.TLS_ERROR,)),
    "with a status code": DeliveryFilter(status_codes=((404, 404), (500, 599))),
    "failed, with a status code": DeliveryFilter((Status.FAILED,), status_codes=((404, 404),)),
    "about an object": DeliveryFilter(object_id="o"),
    "with ids": DeliveryFilter(ids=((b"\x01", b""), (b"\x02", b""))),
    "about an object, failed, with a status code": DeliveryFilter(
        (Status.FAILED,), status_codes=((404, 404),), object_id="o", **SPAN
    ),
}
for name, delivery_filter in FILTERS.items():
    for whose, account in (("of an account", 1), ("all", None)):
        orders = {"": PageRequest(50, (9, 9))}
        if delivery_filter.created_after is None:
            orders[", upward"] = PageRequest(50, (1, 1), ascending=True)
        for order, request in orders.items():
            LIST_VERBS[f"deliveries {whose} {name}{order}"] = (
                lambda c, delivery_filter=delivery_filter, account=account, request=request: deliveries.page(
                    c, account, delivery_filter, request
                )
            )
            of_attempts = replace(request, key=(*request.key, 9))
            LIST_VERBS[f"attempts {whose} {name}{order}"] = (
                lambda c, delivery_filter=delivery_filter, account=account, request=of_attempts: attempts.page(
                    c, account, delivery_filter, request
                )
            )


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A database with a few rows in every table, so that no function returns early."""
    path: Path = tmp_path_factory.mktemp("plans") / "uplift.db"
    schema_version.upgrade(path, now_ms=0)
    body = b'{"id":"x","object":"event","type":"t","api_version":"1","created":1,"data":{}}'
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as raw:
        # Retention deletes only rows that the statistics have counted.
        counted = (statistics.EVENTS_COUNTED, statistics.ATTEMPTS_COUNTED, statistics.TOTALS_COUNTED)
        marks = [(name, 99) for name in counted]
        raw.executemany("INSERT INTO marks VALUES (?, ?)", marks)
        raw.execute("INSERT INTO accounts VALUES (1, x'01', 'a', '[]', 1, 1, NULL, NULL, NULL)")
        raw.execute("INSERT INTO people VALUES (1, x'70', 'x', 'x', NULL, 1, 1)")
        raw.execute("INSERT INTO members VALUES (1, x'6d', 1, 1, 0, 1)")
        raw.execute("INSERT INTO event_types VALUES (1, 't', '', '', NULL, NULL, '1', 0, 1, 1, NULL, NULL)")
        for seq in range(1, 9):
            raw.execute(
                "INSERT INTO events VALUES (?, ?, 1, 1, ?, NULL, ?, 'o', NULL, NULL)",
                (seq, bytes([seq]), seq * 10_000_000, body),
            )
            raw.execute("INSERT INTO event_objects VALUES (0, ?, ?)", (event_objects.object_key(1, "o"), seq))
            raw.execute(
                "INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, completed_at)"
                " VALUES (?, 1, 1, 2, 1)",
                (seq,),
            )
        raw.execute("UPDATE deliveries SET trigger = ? WHERE event_seq = 8", (Trigger.TEST,))
        raw.execute("INSERT INTO idempotency_keys VALUES (1, 'k', 1, 1)")
        raw.execute(
            "INSERT INTO endpoints (seq, id, account_seq, url, description, event_types, secret, secret_created_at,"
            " state, created_at, updated_at) VALUES (1, x'02', 1, '', '', '[]', x'00', 1, 0, 1, 1)"
        )
        raw.execute(
            "INSERT INTO replays (id, account_seq, endpoint_seq, statuses, types, type_seqs, rate_per_second, state,"
            " total, counted_through, next_event_seq, last_event_seq, created_at, updated_at)"
            " VALUES (CAST('r' AS BLOB), 1, 1, '[2]', '[]', '[]', 50, 0, 8, 8, 1, 8, 90000000, 90000000)"
        )
        raw.execute(
            "INSERT INTO erasures (id, account_seq, missing, position, scanned_through, last_event_seq, created_at)"
            " VALUES (CAST('e' AS BLOB), 1, 0, 0, 0, 8, 1)"
        )
        yield raw


@pytest.mark.parametrize("name", LIST_VERBS)
def test_every_query_uses_an_index(raw: sqlite3.Connection, name: str) -> None:
    """A query scans a table only in key order and with a LIMIT, and sorts only the rows of a page."""
    with bound(raw) as connection:
        statements: list[tuple[str, Any]] = []

        def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _ctx: Any, _many: bool) -> None:
            statements.append((statement, parameters))

        sa.event.listen(connection, "before_cursor_execute", note)
        LIST_VERBS[name](connection)
        sa.event.remove(connection, "before_cursor_execute", note)
        assert statements
        for statement, parameters in statements:
            if statement.startswith(("SELECT", "WITH")):
                check(statement, [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)])


def test_deliveries_of_a_replay_are_found_by_their_index(raw: sqlite3.Connection) -> None:
    (_, _, path) = raw.execute("PRAGMA database_list").fetchone()
    with closing(WriterConnection(Path(path))) as writing:
        statements: list[str] = []
        writing.raw.set_trace_callback(statements.append)
        lease = ReplayLease(now=9, until=99, process_id=1, limit=10, outstanding_max=32, body_bytes_max=1000)
        release_replay(writing.raw, 1, CHOICE, ReplayBatch([], 0), lease)
        writing.raw.set_trace_callback(None)
    plans = [row[3] for statement in statements for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert sum("INDEX deliveries_replayed" in plan for plan in plans) == 2, plans
    assert not any(plan.startswith("SCAN") and not plan.startswith("SCAN CONSTANT") for plan in plans), plans


@pytest.mark.parametrize(
    ("missing", "index"),
    [
        (None, "INDEX deliveries_by_endpoint (endpoint_seq=? AND event_seq>? AND event_seq<?)"),
        (MissingEvents(1, (1,)), "INDEX events_by_account (account_seq=? AND seq>? AND seq<?)"),
    ],
)
def test_a_replay_batch_is_read_in_order_without_a_sort(
    raw: sqlite3.Connection, missing: MissingEvents | None, index: str
) -> None:
    with bound(raw) as connection:
        job = replays.get(connection, 1, b"r")
    assert job is not None
    job = replace(job, selection=replace(job.selection, missing=missing))
    statements: list[str] = []
    raw.set_trace_callback(statements.append)
    read_replay_batch(raw, job, first=2, rows=9, limit=5, body_bytes_max=1000)
    raw.set_trace_callback(None)
    plans = [row[3] for statement in statements for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert sum(index in plan for plan in plans) == 2, plans
    assert not [
        plan for plan in plans if plan.startswith("SCAN") and not ("json_each" in plan or "codes VIRTUAL" in plan)
    ], plans
    assert not [plan for plan in plans if "TEMP B-TREE" in plan], plans


DELETED_ENDPOINT = 99
"""The number of an endpoint that does not exist or was deleted, as `cancel_waiting` requires."""

MAINTENANCE: dict[str, list[Verb]] = {
    "deliveries_held": [
        endpoint_backlog.endpoints_with_held,
        lambda c: endpoint_backlog.cancel_held(c, 1, through=5, now=1, limit=9),
        lambda c: endpoint_backlog.cancel_waiting(c, DELETED_ENDPOINT, now=1, limit=9),
        lambda c: backlog.count(c, now=1, limit=9),
    ],
    **{
        index: [lambda c: database_state.read(c, now=1, limit=9)]
        for index in ("deliveries_leased", "notices_due", "replays_unfinished")
    },
    "deliveries_due": [
        lambda c: backlog.count(c, now=1, limit=9),
        lambda c: endpoint_backlog.hold_waiting(c, DELETED_ENDPOINT, now=1, limit=9),
        lambda c: endpoint_backlog.cancel_waiting(c, DELETED_ENDPOINT, now=1, limit=9),
    ],
}


@pytest.mark.parametrize(("index", "verb"), [(index, verb) for index, verbs in MAINTENANCE.items() for verb in verbs])
def test_the_backlog_is_found_by_its_index(raw: sqlite3.Connection, index: str, verb: Verb) -> None:
    with bound(raw) as connection:
        plans: list[str] = []

        def explain(_c: Any, _cursor: Any, statement: str, parameters: Any, _ctx: Any, _many: bool) -> None:
            plans.extend(row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

        sa.event.listen(connection, "before_cursor_execute", explain)
        verb(connection)
        sa.event.remove(connection, "before_cursor_execute", explain)
        assert any(f"INDEX {index}" in plan for plan in plans), plans
        assert not any(plan.startswith("SCAN deliveries") for plan in plans), plans


OLD_BY = {
    "idempotency_keys": "idempotency_keys_by_age",
    "idempotent_creates": "idempotent_creates_by_age",
    "events": "INTEGER PRIMARY KEY",
    "rollups": "rollups_by_age",
    "audit_log": "audit_log_by_age",
    "notices": "notices_done",
    "rejected_events": "rejected_events_by_age",
    "erasures": "erasures_completed",
    "replays": "replays_completed",
    "endpoints": "endpoints_deleted",
    "event_types": "event_types_deleted",
    "api_keys": "api_keys_revoked",
    "service_keys": "service_keys_revoked",
    "accounts": "accounts_deleted",
    "sessions": "sessions_by_end",
    "links": "links_by_end",
    "invitations": "invitations_by_end",
}


@pytest.mark.parametrize("kept", cleanup.RETENTION_RULES, ids=lambda kept: kept.name)
def test_expired_rows_are_found_and_deleted_by_indexes(raw: sqlite3.Connection, kept: cleanup.RetentionRule) -> None:
    """Indexes also find references, so rows that have not expired do not make a batch slower."""
    numbered = {column: number for number, column in enumerate(kept.order, 1)}
    values = {
        column: bytes([number]) if isinstance(column.type, sa.LargeBinary) else number
        for column, number in numbered.items()
    }
    key, position = (tuple(values[column] for column in columns) for columns in (kept.key, kept.order))
    with bound(raw) as connection:
        plans: list[str] = []

        def explain(_c: Any, _cursor: Any, statement: str, parameters: Any, _ctx: Any, many: bool) -> None:
            first = parameters[0] if many else parameters
            plans.extend(row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", first))

        sa.event.listen(connection, "before_cursor_execute", explain)
        cleanup.find_expired(connection, kept, before=1, after=position)
        assert plans[0].startswith(f"SEARCH {kept.name} USING "), plans
        assert OLD_BY[kept.name] in plans[0], plans
        cleanup.find_expired(connection, kept, before=1, after=None)
        raw.execute("BEGIN")
        cleanup.delete_expired(connection, kept, [key, key], before=2**40)
        raw.execute("ROLLBACK")
        sa.event.remove(connection, "before_cursor_execute", explain)
    scans = {" ".join(plan.split()[:2]) for plan in plans if plan.startswith("SCAN") and "CONSTANT ROW" not in plan}
    # `events` is read from its first row. For a deleted event type, which is rare, every account is searched.
    assert scans == {"events": {"SCAN events"}, "event_types": {"SCAN accounts"}}.get(kept.name, set()), plans
    assert not [plan for plan in plans if "TEMP B-TREE" in plan], plans


def check(statement: str, plan: list[str]) -> None:
    """Check a query plan."""
    # GROUP BY may sort, because statistics group only a range of keys. The plan also has the steps of subqueries.
    sorts = [step for step in plan if "TEMP B-TREE" in step and not step.endswith("GROUP BY")]
    subqueries = {f"SCAN {step.split()[1]}" for step in plan if step.startswith(("MATERIALIZE ", "CO-ROUTINE "))}
    scans = [step for step in plan if step.startswith("SCAN") and step not in subqueries]
    text = f"{statement}\n" + "\n".join(plan)
    # A search by object ID finds buckets one by one. The events in these buckets are the candidates for a page.
    pages = ("SCAN page", "SCAN anon", "SCAN buckets")
    for step in scans:
        ends = re.search(r"\bLIMIT\b", statement) and re.search(r"ORDER BY \S+(seq|at)( DESC)?", statement)
        assert step.startswith(pages) or "CONSTANT ROW" in step or (ends and not sorts), text
    # Only the rows of a page, which are found by their keys, may be sorted.
    is_page = any(step.startswith(pages) for step in plan) or " IN (" in statement
    assert not sorts or is_page, text
