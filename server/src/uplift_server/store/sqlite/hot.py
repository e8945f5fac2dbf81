"""The hot verbs on the raw driver: set-based statements, run inside the writer's transaction.

Statements stay portable in meaning; only their batching is SQLite's.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.store import repeats
from uplift_server.store.hot_records import (
    Appended,
    DueEndpoint,
    HealthRow,
    HeldWish,
    IdempotencyConflict,
    LeasedDelivery,
    LeaseWish,
    NewEvent,
    Released,
    Settlement,
)
from uplift_server.store.repeats import Known, Match, Stored
from uplift_server.store.sqlite.rows import ManyRows

_EVENTS: Final = ManyRows("INSERT INTO events (seq, id, account_seq, type_seq, created_at, expires_at, body) {rows}", 7)
_DELIVERIES: Final = ManyRows(
    "INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, due_at, lease_owner, fence) {rows}", 7
)
_KEYS: Final = ManyRows("INSERT INTO idempotency_keys (account_seq, key, event_seq, created_at) {rows}", 4)
_BY_KEY: Final = (
    "SELECT e.seq, e.id, e.created_at, e.type_seq, e.expires_at, e.body FROM idempotency_keys k"
    " JOIN events e ON e.seq = k.event_seq WHERE k.account_seq = ? AND k.key = ?"
)
_BY_ID: Final = "SELECT seq, id, created_at, type_seq, expires_at, body FROM events WHERE id = ? AND account_seq = ?"


class Appender:
    """Stores groups of events; hands out the events' sequence numbers, which only the writer thread does."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # Retention never deletes the newest event, so numbers are not given twice.
        (highest,) = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
        self.next_seq: int = highest + 1

    def append(self, groups: Sequence[Sequence[NewEvent]]) -> list[list[Appended] | IdempotencyConflict]:
        """See the contract."""
        batch = _Batch(self._connection)
        seq = self.next_seq
        results: list[list[Appended] | IdempotencyConflict] = []
        for group in groups:
            if repeats.is_checked(group):
                # Every event of a group is looked up before any of them is stored.
                checked = repeats.check(group, range(seq, seq + len(group)), batch.known.find, batch.find)
                if isinstance(checked, IdempotencyConflict):
                    results.append(checked)
                    continue
                appended, fresh = checked
                for event, number in fresh:
                    batch.add(event, number)
                seq += len(fresh)
            else:
                appended = []
                for event in group:
                    batch.add(event, seq)
                    appended.append(Appended(seq, event.id, event.created_at))
                    seq += 1
            results.append(appended)
        batch.write()
        self.next_seq = seq
        return results


class _Batch:
    """Rows on their way into the database, and what can be found among them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._events: list[tuple[int, bytes, int, int, int, int | None, bytes]] = []
        self._deliveries: list[tuple[int, int, int, int, int | None, int, int]] = []
        self._keys: list[tuple[int, str, int, int]] = []
        self.known = Known()

    def add(self, event: NewEvent, seq: int) -> None:
        """Take an event's rows."""
        account = event.account_seq
        self._events.append((seq, event.id, account, event.type_seq, event.created_at, event.expires_at, event.body))
        for endpoint, status, due_at, owner in event.deliveries:
            self._deliveries.append((seq, endpoint, account, status, due_at, owner, 1 if owner else 0))
        if event.idempotency_key is not None:
            self._keys.append((account, event.idempotency_key, seq, event.created_at))
        if event.idempotency_key is not None or event.caller_chose_id:
            self.known.remember(event, seq)

    def find(self, event: NewEvent) -> Match | None:
        """The event in the database that has the same key or chosen id."""
        if event.idempotency_key is not None:
            row = self._connection.execute(_BY_KEY, (event.account_seq, event.idempotency_key)).fetchone()
            if row is not None:
                return Match("idempotency_key", Stored(*row))
        if event.caller_chose_id:
            row = self._connection.execute(_BY_ID, (event.id, event.account_seq)).fetchone()
            if row is not None:
                return Match("id", Stored(*row))
        return None

    def write(self) -> None:
        """Insert everything."""
        _EVENTS.run(self._connection, self._events)
        _DELIVERIES.run(self._connection, self._deliveries)
        _KEYS.run(self._connection, self._keys)


# A statement that reads many rows returns them as one JSON value. Otherwise, the writer would wait for the interpreter
# lock for every row: see ManyRows.
_DUE: Final = """
SELECT json_group_array(json((
    SELECT json_group_array(json_array(
        d.due_at, d.event_seq, d.endpoint_seq, d.fence, d.attempts_made, d.scheduled_attempts, d.trigger,
        d.resume_status, d.resume_due_at, d.replay_seq, hex(e.id), e.type_seq, e.created_at, e.expires_at,
        length(e.body)))
    FROM (SELECT * FROM deliveries
          WHERE endpoint_seq = wish.value AND status = 0 AND lease_owner = 0 AND due_at <= ?
          ORDER BY due_at, event_seq LIMIT ?) d
    JOIN events e ON e.seq = d.event_seq
)))
FROM json_each(?) wish
"""
_BODIES: Final = (
    "SELECT json_group_array(json_array(seq, length(body))), CAST(group_concat(body, '') AS BLOB)"
    " FROM events WHERE seq IN (SELECT value FROM json_each(?))"
)
_LEASE: Final = ManyRows(
    "UPDATE deliveries SET lease_owner = l.column1, due_at = l.column2, fence = l.column3 FROM ({rows}) l"
    " WHERE deliveries.event_seq = l.column4 AND deliveries.endpoint_seq = l.column5",
    5,
)


def lease_due(
    connection: sqlite3.Connection,
    wishes: Sequence[LeaseWish],
    *,
    now: int,
    lease_until: int,
    owner: int,
    body_bytes_max: int,
) -> list[LeasedDelivery]:
    """See the contract."""
    found = _due(connection, wishes, now)
    taken, body_bytes = 0, 0
    while taken < len(found) and body_bytes <= body_bytes_max:
        body_bytes += found[taken].body_bytes
        taken += 1
    bodies = _bodies(connection, {due.event_seq for due in found[:taken]})
    leased = [
        LeasedDelivery(
            event_seq=due.event_seq,
            endpoint_seq=due.endpoint_seq,
            fence=due.fence + 1,
            lease_until=lease_until,
            attempts_made=due.attempts_made,
            scheduled_attempts=due.scheduled_attempts,
            trigger=Trigger(due.trigger),
            event_id=bytes.fromhex(due.event_id_hex),
            type_seq=due.type_seq,
            created_at=due.created_at,
            expires_at=due.expires_at,
            body=bodies[due.event_seq],
            resume_status=None if due.resume_status is None else Status(due.resume_status),
            resume_due_at=due.resume_due_at,
            replay_seq=due.replay_seq,
        )
        for due in found[:taken]
    ]
    _LEASE.run(connection, [(owner, lease_until, d.fence, d.event_seq, d.endpoint_seq) for d in leased])
    return leased


class _Due(NamedTuple):
    """A due delivery without its body."""

    due_at: int
    event_seq: int
    endpoint_seq: int
    fence: int
    attempts_made: int
    scheduled_attempts: int
    trigger: int
    resume_status: int | None
    resume_due_at: int | None
    replay_seq: int | None
    event_id_hex: str
    type_seq: int
    created_at: int
    expires_at: int | None
    body_bytes: int


def _due(connection: sqlite3.Connection, wishes: Sequence[LeaseWish], now: int) -> list[_Due]:
    """Return the due deliveries of each endpoint up to its limit, earliest due time first."""
    found: dict[int, list[_Due]] = {}
    # Endpoints with similar limits share a statement, which reads as many rows for each as the highest limit.
    by_size: dict[int, list[LeaseWish]] = {}
    for wish in wishes:
        by_size.setdefault(wish.limit.bit_length(), []).append(wish)
    for some in by_size.values():
        endpoints = json.dumps([wish.endpoint_seq for wish in some])
        (text,) = connection.execute(_DUE, (now, max(wish.limit for wish in some), endpoints)).fetchone()
        for wish, rows in zip(some, json.loads(text), strict=True):
            found[wish.endpoint_seq] = sorted(_Due(*row) for row in rows)[: wish.limit]
    return [due for wish in wishes for due in found[wish.endpoint_seq]]


def _bodies(connection: sqlite3.Connection, event_seqs: Collection[int]) -> dict[int, bytes]:
    """Return the bodies of events by sequence number."""
    sizes, joined = connection.execute(_BODIES, (json.dumps(list(event_seqs)),)).fetchone()
    bodies, at = {}, 0
    for seq, size in json.loads(sizes):
        bodies[seq] = joined[at : at + size]
        at += size
    return bodies


# The driver counts changed rows only for statements that begin with UPDATE, so the rows are no WITH clause.
_SETTLE_TEXT: Final = (
    "UPDATE deliveries SET status = s.column1, due_at = s.column2, attempts_made = s.column3,"
    " scheduled_attempts = s.column4, last_outcome = coalesce(s.column5, last_outcome),"
    # A resend that leads back to where the delivery was leaves why and when it got there, if it was there before.
    " failed_reason = CASE WHEN resume_status = s.column1 THEN coalesce(failed_reason, s.column6) ELSE s.column6 END,"
    " completed_at = CASE WHEN resume_status = s.column1 THEN coalesce(completed_at, s.column7) ELSE s.column7 END,"
    # A test (3) is known for good.
    " lease_owner = 0, trigger = CASE trigger WHEN 3 THEN 3 ELSE 0 END,"
    " resume_status = NULL, resume_due_at = NULL{let_go} FROM ({{rows}}) s"
    " WHERE deliveries.event_seq = s.column8 AND deliveries.endpoint_seq = s.column9 AND deliveries.fence = s.column10"
    # Under the same fence nobody has leased it since, even if the lease has ended and it was held (3) then; a repeat
    # finds the count moved.
    " AND deliveries.status IN (0, 3) AND deliveries.attempts_made = s.column11"
)
_SETTLE: Final = ManyRows(_SETTLE_TEXT.format(let_go=""), 11)
# What a replay counts it has no longer in hand.
_SETTLE_COUNTED: Final = ManyRows(
    _SETTLE_TEXT.format(let_go=", replay_seq = CASE WHEN s.column12 THEN NULL ELSE replay_seq END"), 12
)
_ATTEMPTS: Final = ManyRows(
    "INSERT INTO attempts (event_seq, endpoint_seq, number, trigger, started_at, duration_us, dns_ms, connect_ms,"
    " tls_ms, first_byte_ms, status_code, outcome, error, location, remote_address, request_head, response_head,"
    " response_body, body_truncated) {rows}",
    19,
)
_HEALTH: Final = ManyRows(
    "UPDATE endpoints SET consecutive_failures = h.column1, failing_since = h.column2, last_success_at = h.column3,"
    " last_failure_at = h.column4, last_outcome = h.column5,"
    # It only grows until `failing_since` changes, because another process may have just raised it.
    " excused_ms = CASE WHEN failing_since = h.column2 THEN max(excused_ms, h.column6) ELSE h.column6 END"
    " FROM ({rows}) h WHERE endpoints.seq = h.column7"
    " AND (h.column8 = 0 OR EXISTS (SELECT 1 FROM processes WHERE processes.seq = h.column8))",
    8,
)


def settle(
    connection: sqlite3.Connection, settlements: Sequence[Settlement], health: Sequence[HealthRow], *, by: int = 0
) -> frozenset[tuple[int, int]]:
    """See the contract."""
    rows: list[tuple[int | None, ...]] = [
        (s.status, s.due_at, s.attempts_made, s.scheduled_attempts, s.last_outcome, s.failed_reason, s.completed_at,
         s.event_seq, s.endpoint_seq, s.fence, s.attempts_made - (s.attempt is not None))
        for s in settlements
    ]  # fmt: skip
    replayed = [s for s in settlements if s.replay_seq is not None]
    statement = _SETTLE
    if replayed:
        statement = _SETTLE_COUNTED
        rows = [(*row, s.replay_seq is not None) for row, s in zip(rows, settlements, strict=True)]
    lost: set[tuple[int, int]] = set()
    connection.execute("SAVEPOINT settle")
    if statement.run(connection, rows) != len(rows):
        # Somebody holds a newer lease on at least one. Which one, only single statements tell.
        connection.execute("ROLLBACK TO settle")
        for row, s in zip(rows, settlements, strict=True):
            if statement.run(connection, [row]) == 0:
                lost.add((s.event_seq, s.endpoint_seq))
    connection.execute("RELEASE settle")
    kept = [s.attempt for s in settlements if s.attempt is not None]
    if lost:
        kept = [attempt for attempt in kept if (attempt.event_seq, attempt.endpoint_seq) not in lost]
    _ATTEMPTS.run(connection, kept)
    _HEALTH.run(connection, [(*h[1:], h.endpoint_seq, by) for h in health])
    if replayed:
        _count(connection, [s for s in replayed if (s.event_seq, s.endpoint_seq) not in lost])
    return frozenset(lost)


def _count(connection: sqlite3.Connection, replayed: Sequence[Settlement]) -> None:
    """Let replays know how their attempts ended."""
    ends = Counter(s.replay_seq for s in replayed)
    delivered = Counter(s.replay_seq for s in replayed if s.last_outcome == Outcome.DELIVERED)
    for replay, count in ends.items():
        connection.execute(
            "UPDATE replays SET delivered = delivered + ?, failed = failed + ? WHERE seq = ?",
            (delivered[replay], count - delivered[replay], replay),
        )


# What was leased had its turn before whatever waits for its endpoint: it does not lose it by coming back.
_NOT_AFTER_OTHERS: Final = (
    "coalesce((SELECT min(w.due_at) FROM deliveries w"
    " WHERE w.endpoint_seq = deliveries.endpoint_seq AND w.status = 0 AND w.lease_owner = 0), due_at)"
)


_RELEASE: Final = ManyRows(
    f"UPDATE deliveries SET lease_owner = 0, due_at = min(r.column1, {_NOT_AFTER_OTHERS})"  # noqa: S608
    " FROM ({rows}) r"
    " WHERE deliveries.event_seq = r.column2 AND deliveries.endpoint_seq = r.column3 AND deliveries.fence = r.column4"
    " AND deliveries.status = 0 AND deliveries.lease_owner <> 0",
    4,
)


def release(connection: sqlite3.Connection, leases: Sequence[tuple[int, int, int]], *, now: int) -> None:
    """See the contract."""
    _RELEASE.run(connection, [(now, *lease) for lease in leases])


def reclaim(connection: sqlite3.Connection, *, now: int, owner: int | None, limit: int) -> int:
    """See the contract."""
    ended, value = ("due_at <= ?", now) if owner is None else ("lease_owner = ?", owner)
    return connection.execute(
        f"UPDATE deliveries SET lease_owner = 0, due_at = min(due_at, ?, {_NOT_AFTER_OTHERS})"  # noqa: S608
        " WHERE (event_seq, endpoint_seq) IN"
        f" (SELECT event_seq, endpoint_seq FROM deliveries WHERE status = 0 AND lease_owner <> 0 AND {ended} LIMIT ?)",
        (now, value, limit),
    ).rowcount


_WAITS: Final = (
    "SELECT 1 FROM deliveries WHERE endpoint_seq = ? AND status = 0 AND lease_owner = 0 AND due_at <= ? LIMIT 1"
)
_OLDEST_HELD: Final = (
    # Without statistics SQLite would rather go through the endpoint's whole history.
    "SELECT d.event_seq, e.expires_at <= ? FROM deliveries d INDEXED BY deliveries_held"
    " JOIN events e ON e.seq = d.event_seq"
    " WHERE d.endpoint_seq = ? AND d.status = 3 AND d.event_seq > ? ORDER BY d.event_seq LIMIT ?"
)
_RELEASE_HELD: Final = "UPDATE deliveries SET status = 0, due_at = ? WHERE event_seq = ? AND endpoint_seq = ?"
_EXPIRE_HELD: Final = (
    f"UPDATE deliveries SET status = {int(Status.FAILED)}, failed_reason = {int(FailedReason.EXPIRED)},"  # noqa: S608
    " completed_at = ? WHERE event_seq = ? AND endpoint_seq = ?"
)


def release_held(connection: sqlite3.Connection, wishes: Sequence[HeldWish], *, now: int) -> list[Released]:
    """See the contract."""
    results = []
    for endpoint, after, limit in wishes:
        if connection.execute(_WAITS, (endpoint, now)).fetchone() is not None:
            results.append(Released(0, 0, waits=True))
            continue
        rows = connection.execute(_OLDEST_HELD, (now, endpoint, after, limit)).fetchall()
        due = [(now, event, endpoint) for event, expired in rows if not expired]
        expired = [(now, event, endpoint) for event, expired in rows if expired]
        connection.executemany(_RELEASE_HELD, due)
        connection.executemany(_EXPIRE_HELD, expired)
        results.append(Released(len(due), len(expired), waits=False))
    return results


# A loose index scan: from one endpoint's first entry straight to the next endpoint's, however many each has.
_DUE_ENDPOINTS: Final = """
WITH RECURSIVE waiting(endpoint_seq) AS (
    SELECT min(endpoint_seq) FROM deliveries WHERE status = 0 AND lease_owner = 0 AND endpoint_seq > ?
    UNION ALL
    SELECT (SELECT min(d.endpoint_seq) FROM deliveries d
            WHERE d.status = 0 AND d.lease_owner = 0 AND d.endpoint_seq > waiting.endpoint_seq)
    FROM waiting WHERE waiting.endpoint_seq IS NOT NULL
    LIMIT ?
)
SELECT json_group_array(json_array(
    endpoint_seq,
    (SELECT min(d.due_at) FROM deliveries d
     WHERE d.status = 0 AND d.lease_owner = 0 AND d.endpoint_seq = waiting.endpoint_seq)))
FROM waiting WHERE endpoint_seq IS NOT NULL
"""


def due_endpoints(connection: sqlite3.Connection, *, after: int, limit: int) -> list[DueEndpoint]:
    """See the contract."""
    (text,) = connection.execute(_DUE_ENDPOINTS, (after, limit)).fetchone()
    return [DueEndpoint(*row) for row in json.loads(text)]


_NEXT_DUE: Final = """
SELECT json_group_array(json_array(wish.value, (
    SELECT min(due_at) FROM deliveries WHERE endpoint_seq = wish.value AND status = 0 AND lease_owner = 0)))
FROM json_each(?) wish
"""


def next_due(connection: sqlite3.Connection, endpoint_seqs: Sequence[int]) -> list[DueEndpoint]:
    """See the contract."""
    (text,) = connection.execute(_NEXT_DUE, (json.dumps(list(endpoint_seqs)),)).fetchone()
    return [DueEndpoint(endpoint, due_at) for endpoint, due_at in json.loads(text) if due_at is not None]
