"""Erase event content, and all copies of it in other rows.

An erased event keeps its ID, type and timestamps. The erasure also sets the event's expiry to a time in the past,
so that no process sends, replays or streams the event, not even a process that runs an earlier release. The event's
deliveries get a new fence. The new fence invalidates attempts in flight, and bodies that a process read before the
erasure.

On SQLite, a smaller row would move other rows within its page, and leave their old bytes there. Therefore, padding
keeps erased rows at their original size, and SQLite overwrites the rows in place.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.causes import shown_location
from uplift_server.core.deliveries.responses import first_line
from uplift_server.core.events import envelope
from uplift_server.core.lifecycle import Status
from uplift_server.core.people.notifications import CONTENT_FACTS
from uplift_server.store import change_log, endpoint_backlog, event_objects, locks, rejected_events
from uplift_server.store.erasures import Erasure
from uplift_server.store.schema import (
    attempts,
    audit_log,
    deliveries,
    endpoints,
    events,
    idempotency_keys,
    listen_answers,
    listen_sessions,
    notices,
    replays,
)
from uplift_server.store.schema_erasures import erasures
from uplift_server.store.schema_traces import trace_parents

ERASED_OBJECT_ID: Final = ""
"""The text that replaces an erased object ID in replay filters. No event has this object ID."""
_RESENT: Final = "deliveries.resent"
_GROUPED_MS_MAX: Final = 600_000
"""How much older than a failure the email about it can be, in ms.

The server adds failures to an email for up to 5 minutes, and the clocks of processes differ.
"""
_BLOB, _TEXT = 12, 13
"""The serial types of an empty BLOB and an empty string in SQLite's record format.

The serial type of a longer value is higher by twice its length in bytes.
"""


class Erased(NamedTuple):
    """The events and endpoints whose content was erased, but may still be in the memory of processes."""

    leased: Sequence[int]
    """The numbers of the erased events that have leased deliveries."""
    endpoints: Sequence[int]
    """The numbers of the endpoints whose last error was erased."""


def erase(
    connection: Connection,
    erasure: Erasure,
    event_seqs: Sequence[int],
    *,
    position: int,
    scanned_through: int,
    now: int,
) -> Erased:
    """Erase events of the erasure's account, and store the progress of the erasure.

    Skip events that are already erased.
    """
    query = sa.select(events).where(
        events.c.seq.in_(event_seqs), events.c.account_seq == erasure.account_seq, events.c.erased_at.is_(None)
    )
    # A replay that creates a delivery for one of these events waits for this lock, and then sees the erasure.
    found = connection.execute(query.order_by(events.c.seq).with_for_update()).all()
    seqs = [row.seq for row in found]
    leases = _end_deliveries(connection, seqs, now)
    event_objects.delete(connection, seqs)
    for row in found:
        _erase_event(connection, row, now)
    cleared = _erase_attempts(connection, seqs)
    _erase_keys(connection, erasure.account_seq, found)
    connection.execute(sa.delete(trace_parents).where(trace_parents.c.event_seq.in_(seqs)))
    sessions = sa.select(listen_sessions.c.seq).where(listen_sessions.c.account_seq == erasure.account_seq)
    connection.execute(
        sa.delete(listen_answers).where(
            listen_answers.c.session_seq.in_(sessions), listen_answers.c.event_id.in_([row.id for row in found])
        )
    )
    if erasure.event_seqs is not None:
        for object_id in {row.object_id for row in found if row.object_id is not None}:
            if not _has_events(connection, erasure.account_seq, object_id):
                _erase_object_id(connection, erasure.account_seq, object_id)
    own = erasures.c.seq == erasure.seq
    known = connection.execute(sa.select(erasures.c.oldest_at, erasures.c.leases_until).where(own)).one()
    connection.execute(
        sa.update(erasures)
        .where(own)
        .values(
            events=erasures.c.events + len(found),
            position=position,
            scanned_through=scanned_through,
            oldest_at=min((at for at in (known.oldest_at, *(row.created_at for row in found)) if at), default=None),
            leases_until=max((at for at in (known.leases_until, *leases.values()) if at), default=None),
        )
    )
    change_log.note(connection, "endpoints", cleared)
    return Erased(list(leases), cleared)


def tidy(connection: Connection, erasure: Erasure, *, now: int) -> list[int]:
    """Finish an erasure: erase the copies of content in rows that do not belong to a single event.

    These rows are replays, rejected events, audit log entries, emails, endpoints, and the erasure itself. Return the
    numbers of the endpoints whose last error was erased.
    """
    if erasure.object_id is not None:
        _erase_object_id(connection, erasure.account_seq, erasure.object_id)
    own = erasures.c.seq == erasure.seq
    oldest_at = connection.scalar(sa.select(erasures.c.oldest_at).where(own))
    if oldest_at is not None:
        _erase_in_emails(connection, erasure.account_seq, oldest_at)
    cleared: list[int] = []
    if erasure.leases_until is not None:
        # Attempts that were in flight during the erasure may have stored errors after it, so erase these errors too.
        written = endpoints.c.last_failure_at.between(erasure.created_at, erasure.leases_until)
        change = sa.update(endpoints).where(endpoints.c.account_seq == erasure.account_seq, written)
        cleared += connection.scalars(change.values(last_error=None, last_location=None).returning(endpoints.c.seq))
    change_log.note(connection, "endpoints", cleared)
    connection.execute(sa.update(erasures).where(own).values(object_id=None, event_seqs=None, tidied_at=now))
    return cleared


def _end_deliveries(connection: Connection, event_seqs: Sequence[int], now: int) -> dict[int, int]:
    """Cancel the open deliveries of events, and give all deliveries of the events a new fence.

    Return, by event number, when the last lease on the event's deliveries ends (Unix ms). Omit events without leased
    deliveries.
    """
    of_events = deliveries.c.event_seq.in_(event_seqs)
    ordered = sa.select(deliveries.c.endpoint_seq).where(of_events, deliveries.c.order_group.is_not(None)).distinct()
    locks.take_order(connection, list(connection.scalars(ordered)))
    locked = (
        sa.select(deliveries.c.event_seq, deliveries.c.status, deliveries.c.lease_owner, deliveries.c.due_at)
        .where(of_events)
        .order_by(*deliveries.primary_key.columns)
        .with_for_update()
    )
    rows = connection.execute(locked).all()
    leases: dict[int, int] = {}
    for row in rows:
        if row.status == Status.PENDING and row.lease_owner != 0:
            leases[row.event_seq] = max(row.due_at, leases.get(row.event_seq, 0))
    endpoint_backlog.cancel_of_events(connection, event_seqs, now=now)
    return leases


def _erase_event(connection: Connection, row: sa.Row[Any], now: int) -> None:
    body = envelope.without_data(row.body)
    # Set the expiry to the creation time, so that not even a process whose clock is behind sends the event.
    values: dict[str, Any] = {
        "object_id": None,
        "expires_at": row.created_at,
        "erased_at": now,
        "ordering_key": None,
    }
    if connection.dialect.name == "sqlite":
        before = [row.body, row.object_id, row.expires_at, row.erased_at, row.ordering_key]
        size = _padded_size(before, list(values.values()))
        body += b" " * max(0, size - len(body))
    connection.execute(sa.update(events).where(events.c.seq == row.seq).values(body=body, **values))


def _erase_attempts(connection: Connection, event_seqs: Sequence[int]) -> list[int]:
    """Erase the requests and responses in the attempts of events, and endpoint errors that came from these attempts.

    Return the numbers of the endpoints whose last error was erased.
    """
    columns = (attempts.c.error, attempts.c.location, attempts.c.request_head, attempts.c.response_head)
    query = sa.select(attempts.c.seq, attempts.c.event_seq, attempts.c.endpoint_seq, *columns, attempts.c.response_body)
    rows = connection.execute(query.where(attempts.c.event_seq.in_(event_seqs))).all()
    values: dict[str, Any] = {"error": None, "location": None, "request_head": b"", "response_head": b""}
    for row in rows:
        body = b""
        if connection.dialect.name == "sqlite":
            body = b"\0" * _padded_size(list(row[3:]), list(values.values()))
        own = sa.and_(attempts.c.seq == row.seq, attempts.c.event_seq == row.event_seq)
        connection.execute(sa.update(attempts).where(own).values(response_body=body, **values))
    told = {
        (row.endpoint_seq, text)
        for row in rows
        for text in (row.error, first_line(row.response_body or b""), row.location and shown_location(row.location))
        if text
    }
    cleared: dict[int, None] = {}
    for endpoint_seq, text in sorted(told):
        repeats = sa.or_(endpoints.c.last_error == text, endpoints.c.last_location == text)
        change = sa.update(endpoints).where(endpoints.c.seq == endpoint_seq, repeats)
        if connection.execute(change.values(last_error=None, last_location=None)).rowcount:
            cleared[endpoint_seq] = None
    return list(cleared)


def _erase_keys(connection: Connection, account_seq: int, found: Sequence[sa.Row[Any]]) -> None:
    """Delete the idempotency keys of events, and copies in rejected events, because a key can contain an object ID."""
    deleted = connection.scalars(
        sa.delete(idempotency_keys)
        .where(
            # The index begins with the timestamp, which an idempotency key shares with its event.
            idempotency_keys.c.created_at.in_({row.created_at for row in found}),
            idempotency_keys.c.event_seq.in_([row.seq for row in found]),
        )
        .returning(idempotency_keys.c.key)
    )
    rejected_events.erase_keys(connection, account_seq, list(deleted))


def _has_events(connection: Connection, account_seq: int, object_id: str) -> bool:
    newest = connection.scalar(sa.select(sa.func.max(events.c.seq))) or 0
    found = event_objects.candidates(connection, account_seq, object_id, 0, newest)
    query = sa.select(events.c.seq).where(*event_objects.matching(object_id, found))
    return connection.execute(query.where(events.c.account_seq == account_seq).limit(1)).first() is not None


def _erase_object_id(connection: Connection, account_seq: int, object_id: str) -> None:
    """Erase an object ID in rejected events, in replay filters, and in audit log entries for replays."""
    rejected_events.erase_object_id(connection, account_seq, object_id)
    own = sa.and_(replays.c.account_seq == account_seq, replays.c.object_id == object_id)
    connection.execute(sa.update(replays).where(own).values(object_id=ERASED_OBJECT_ID))
    entries = sa.select(audit_log.c.seq, audit_log.c.details).where(
        audit_log.c.account_seq == account_seq, audit_log.c.action == _RESENT
    )
    for row in connection.execute(entries).all():
        details = json.loads(row.details)
        if details.get("object_id") == object_id:
            text = json.dumps({**details, "object_id": "erased"})
            connection.execute(sa.update(audit_log).where(audit_log.c.seq == row.seq).values(details=text))


def _erase_in_emails(connection: Connection, account_seq: int, since: int) -> None:
    """Erase the failure causes in the account's emails that can be from `since` (Unix ms) or later.

    A cause can contain a receiver's response.
    """
    query = sa.select(notices.c.seq, notices.c.facts).where(
        notices.c.account_seq == account_seq, notices.c.created_at >= since - _GROUPED_MS_MAX
    )
    for row in connection.execute(query.order_by(notices.c.seq).with_for_update()).all():
        facts = json.loads(row.facts)
        erased = _without_content(facts)
        if erased != facts:
            change = sa.update(notices).where(notices.c.seq == row.seq)
            connection.execute(change.values(facts=json.dumps(erased)))


def _without_content(facts: Mapping[str, Any]) -> dict[str, Any]:
    erased: dict[str, Any] = {name: "" if name in CONTENT_FACTS else value for name, value in facts.items()}
    others = facts.get("others")
    return erased if not isinstance(others, list) else {**erased, "others": [_without_content(each) for each in others]}


def _padded_size(before: Sequence[Any], after: Sequence[Any]) -> int:
    """Return the size, in bytes, of the padding that keeps a SQLite record's size unchanged.

    `before` contains the record's old values, and `after` the new values without the padding.
    """
    room = sum(map(_record_bytes, before)) - sum(map(_record_bytes, after))
    # At some sizes, one byte of the room stays unused: one more byte would also lengthen the serial type.
    return next((room - length for length in range(1, 5) if _record_bytes(b"\0" * (room - length)) <= room), 0)


def _record_bytes(value: Any) -> int:
    """Return the size in bytes that a value and its serial type take in a SQLite record."""
    if value is None:
        return 1
    if isinstance(value, int):
        if value in (0, 1):
            return 1
        return 1 + next(size for size in (1, 2, 3, 4, 6, 8) if -(1 << 8 * size - 1) <= value < 1 << 8 * size - 1)
    kind, size = (_TEXT, len(value.encode())) if isinstance(value, str) else (_BLOB, len(value))
    return size + (max((kind + 2 * size).bit_length(), 1) + 6) // 7
