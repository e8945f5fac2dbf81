"""Rejected events: events from the stream that the server rejected. The server does not store their data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core import ids
from uplift_server.core.events.rejected import stored_problem, stored_text
from uplift_server.core.limits import (
    REJECTED_EVENT_SUBJECT_CHARACTERS_MAX,
    REJECTED_EVENTS_COUNTED_MAX,
    REJECTED_EVENTS_PER_ACCOUNT_MAX,
)
from uplift_server.store.pages import PageRequest, numbers_between, window_end
from uplift_server.store.records import Page
from uplift_server.store.schema import accounts
from uplift_server.store.schema_rejected_events import rejected_events

WINDOW_ROWS: Final = 10_000
"""Maximum number of rejected events to scan for one page. If few match, the page is shorter than requested."""
_ADD: Final = sa.text(
    "INSERT INTO rejected_events (id, account_seq, subject, event_type, event_id, idempotency_key, problem, size_bytes,"
    " stream_seq, published_at, rejected_at)"
    " VALUES (:id, :account_seq, :subject, :event_type, :event_id, :idempotency_key, :problem, :size_bytes,"
    " :stream_seq, :published_at, :rejected_at) ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """A rejected event, without its data. Timestamps are Unix ms."""

    id: bytes
    """The ID from `rejected_id`."""
    account_seq: int | None
    """The account number. None if the server could not find the account."""
    subject: str
    event_type: str | None
    """The event type from the message. The idempotency key is also from the message."""
    event_id: str | None
    """The event ID from the message, or from the response to the request that sent the event."""
    idempotency_key: str | None
    problem: Mapping[str, Any]
    """The problem details (RFC 9457) that `POST /v1/events` would have returned for the event."""
    size_bytes: int
    stream_seq: int
    published_at: int
    rejected_at: int
    seq: int = 0
    account_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class RejectedEventFilter:
    """Filter for rejected events. Timestamps are Unix ms."""

    event_types: Sequence[str] = ()
    event_id: str | None = None
    idempotency_key: str | None = None
    since: int | None = None
    """The earliest time of rejection (inclusive)."""
    until: int | None = None
    """The latest time of rejection (exclusive)."""


def rejected_id(stream_seq: int, published_at: int, position: int = 0) -> bytes:
    """Return the ID of a rejected event. If the stream delivers its message again, the ID is the same.

    The ID depends on the message's number in the stream, on its timestamp (Unix ms), and on the event's position in the
    message. The timestamp distinguishes messages from different streams, whose numbers all start at 1.
    """
    place = stream_seq.to_bytes(8, "big") + (position.to_bytes(4, "big") if position else b"")
    return ids.uuid7(published_at, blake2b(place, digest_size=ids.RANDOM_BYTES).digest())


def add(connection: Connection, *rejected: RejectedEvent) -> None:
    """Store rejected events, and delete the oldest rejected events beyond each account's limit.

    Skip rejected events that are already stored, so that a repeated call has no effect.
    """
    if not rejected:
        return
    connection.execute(_ADD, [_row(each) for each in rejected])
    for account_seq in {each.account_seq for each in rejected}:
        _delete_excess(connection, account_seq)


def page(
    connection: Connection, account_seq: int | None, wanted: RejectedEventFilter, request: PageRequest
) -> Page[RejectedEvent]:
    """List a page of an account's rejected events.

    If `account_seq` is None, list the rejected events of all accounts, including events whose account is unknown.
    """
    after = None if wanted.since is None else wanted.since - 1
    bounds = numbers_between(connection, rejected_events.c.rejected_at, after=after, before=wanted.until)
    low, high = request.narrowed(*bounds)
    own = [] if account_seq is None else [rejected_events.c.account_seq == account_seq]
    seq, up = rejected_events.c.seq, request.reads_up
    # Search a window of rows, because no index contains the values of the filters.
    end = window_end(connection, seq, rejected_events, own, low=low, high=high, rows=WINDOW_ROWS, up=up)
    if end is not None:
        low, high = (low, end) if up else (end, high)
    query = request.of(_details().where(seq.between(low, high), *own, *_conditions(wanted)), seq)
    read_to = None if end is None else (end,)
    return request.page([_rejected(row) for row in connection.execute(query)], lambda each: (each.seq,), read_to)


def get(connection: Connection, account_seq: int | None, rejected_id: bytes) -> RejectedEvent | None:
    """Return the rejected event with this ID in an account, or in any account if `account_seq` is None."""
    query = _details().where(rejected_events.c.id == rejected_id)
    if account_seq is not None:
        query = query.where(rejected_events.c.account_seq == account_seq)
    row = connection.execute(query).first()
    return None if row is None else _rejected(row)


def find(connection: Connection, rejected_ids: Sequence[bytes]) -> list[RejectedEvent]:
    """Return the rejected events with these IDs, in any account."""
    query = _details().where(rejected_events.c.id.in_(rejected_ids))
    return [_rejected(row) for row in connection.execute(query)]


def count_since(connection: Connection, since: int) -> int:
    """Count the events that were rejected at `since` (Unix ms) or later, up to REJECTED_EVENTS_COUNTED_MAX."""
    # `order_by` makes PostgreSQL use the index.
    at = rejected_events.c.rejected_at
    query = sa.select(at).where(at >= since).order_by(at.desc()).limit(REJECTED_EVENTS_COUNTED_MAX)
    return connection.scalar(sa.select(sa.func.count()).select_from(query.subquery("page"))) or 0


def has_any(connection: Connection, account_seq: int | None) -> bool:
    """Whether an account has rejected events. If `account_seq` is None, whether any rejected event exists."""
    query = sa.select(rejected_events.c.seq).order_by(rejected_events.c.seq.desc()).limit(1)
    if account_seq is not None:
        query = query.where(rejected_events.c.account_seq == account_seq)
    return connection.execute(query).first() is not None


def erase_keys(connection: Connection, account_seq: int, keys: Sequence[str]) -> None:
    """Erase these idempotency keys in an account's rejected events. The keys belong to erased events."""
    stored = [stored_text(key) for key in keys]
    own = (rejected_events.c.account_seq == account_seq, rejected_events.c.idempotency_key.in_(stored))
    connection.execute(sa.update(rejected_events).where(*own).values(idempotency_key=None))


def erase_object_id(connection: Connection, account_seq: int, object_id: str) -> None:
    """In an account's rejected events, erase the event IDs and idempotency keys that contain an object ID."""
    for column in (rejected_events.c.idempotency_key, rejected_events.c.event_id):
        own = (rejected_events.c.account_seq == account_seq, column.contains(object_id, autoescape=True))
        connection.execute(sa.update(rejected_events).where(*own).values({column: None}))


def _delete_excess(connection: Connection, account_seq: int | None) -> None:
    seq, account = rejected_events.c.seq, rejected_events.c.account_seq
    own = account.is_(None) if account_seq is None else account == account_seq
    excess = sa.select(seq).where(own).order_by(seq.desc()).offset(REJECTED_EVENTS_PER_ACCOUNT_MAX).limit(1)
    connection.execute(sa.delete(rejected_events).where(own, seq <= excess.scalar_subquery()))


def _conditions(wanted: RejectedEventFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.event_types:
        conditions.append(rejected_events.c.event_type.in_(wanted.event_types))
    if wanted.event_id is not None:
        conditions.append(rejected_events.c.event_id == stored_text(wanted.event_id))
    if wanted.idempotency_key is not None:
        conditions.append(rejected_events.c.idempotency_key == stored_text(wanted.idempotency_key))
    if wanted.since is not None:
        conditions.append(rejected_events.c.rejected_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(rejected_events.c.rejected_at < wanted.until)
    return conditions


def _details() -> sa.Select[Any]:
    return sa.select(rejected_events, accounts.c.id.label("account_id")).outerjoin(
        accounts, accounts.c.seq == rejected_events.c.account_seq
    )


def _row(rejected: RejectedEvent) -> dict[str, Any]:
    return {
        "id": rejected.id,
        "account_seq": rejected.account_seq,
        "subject": stored_text(rejected.subject, characters_max=REJECTED_EVENT_SUBJECT_CHARACTERS_MAX),
        "event_type": _optional(rejected.event_type),
        "event_id": _optional(rejected.event_id),
        "idempotency_key": _optional(rejected.idempotency_key),
        "problem": json.dumps(stored_problem(rejected.problem, rejected.idempotency_key)),
        "size_bytes": rejected.size_bytes,
        "stream_seq": rejected.stream_seq,
        "published_at": rejected.published_at,
        "rejected_at": rejected.rejected_at,
    }


def _optional(text: str | None) -> str | None:
    return None if text is None else stored_text(text)


def _rejected(row: sa.Row[Any]) -> RejectedEvent:
    return RejectedEvent(
        id=row.id,
        account_seq=row.account_seq,
        subject=row.subject,
        event_type=row.event_type,
        event_id=row.event_id,
        idempotency_key=row.idempotency_key,
        problem=json.loads(row.problem),
        size_bytes=row.size_bytes,
        stream_seq=row.stream_seq,
        published_at=row.published_at,
        rejected_at=row.rejected_at,
        seq=row.seq,
        account_id=row.account_id,
    )
