"""Deliveries and attempts: lists, and the start of a resend. The engines write everything else."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.http.request_headers import mask_request_headers
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.store import event_objects, event_times, status_sql
from uplift_server.store.errors import Conflict, InFlight, Missing
from uplift_server.store.hot_records import LeasedDelivery
from uplift_server.store.pages import page_of
from uplift_server.store.records import Attempt, Delivery, DeliveryFilter, Page
from uplift_server.store.schema import accounts, attempts, deliveries, endpoints, event_types, events

ERASED: Final = "You cannot resend this delivery, because the event was erased. Send a new event."
IN_FLIGHT: Final = "An attempt is in flight. Wait for its outcome, then try again."
WINDOW_ROWS: Final = 10_000
"""Number of rows that one page scans if no index supports its filter. If few of them match, the page ends early."""
_ENDPOINT_ID_TAIL_FROM: Final = 11
_UNSUCCESSFUL: Final = frozenset({Status.FAILED, Status.HELD, Status.CANCELLED})


class _Source(NamedTuple):
    """The table that provides a list in order, and the conditions that its index supports."""

    event_seq: sa.ColumnElement[int]
    tables: sa.FromClause
    conditions: list[sa.ColumnElement[bool]]
    low: int
    """The lowest event number that the source covers."""


def find(connection: Connection, account_seq: int | None, event_id: bytes, endpoint_id_tail: bytes) -> list[Delivery]:
    """Find the delivery of an event to the endpoint whose ID ends with the bytes.

    Without an account, it returns up to two deliveries, because chosen event IDs are unique only within an account.
    """
    query = _details(deliveries).where(
        events.c.id == event_id, sa.func.substr(endpoints.c.id, _ENDPOINT_ID_TAIL_FROM) == endpoint_id_tail
    )
    if account_seq is not None:
        query = query.where(events.c.account_seq == account_seq)
    return [_delivery(row) for row in connection.execute(query.limit(2))]


def page_of_event(
    connection: Connection, event_seq: int, *, limit: int, before: tuple[int, ...] | None = None
) -> Page[Delivery]:
    """List the deliveries of an event, newest endpoints first."""
    keys = sa.select(deliveries.c.event_seq, deliveries.c.endpoint_seq).where(deliveries.c.event_seq == event_seq)
    if before is not None:
        keys = keys.where(deliveries.c.endpoint_seq < before[0])
    keys = keys.order_by(deliveries.c.endpoint_seq.desc()).limit(limit + 1)
    return page_of(_detailed(connection, keys), limit, lambda delivery: (delivery.endpoint_seq,))


def endpoints_of_event(connection: Connection, event_seq: int) -> set[int]:
    """Return the numbers of the endpoints with a delivery of an event."""
    return set(connection.scalars(sa.select(deliveries.c.endpoint_seq).where(deliveries.c.event_seq == event_seq)))


def successes_by_endpoint(connection: Connection, event_seq: int, *, limit: int) -> dict[int, bool]:
    """Return whether an attempt of an event succeeded, by endpoint. Deleted deliveries are included."""
    succeeded = sa.func.max(sa.case((attempts.c.outcome == Outcome.DELIVERED, 1), else_=0))
    query = sa.select(attempts.c.endpoint_seq, succeeded).where(attempts.c.event_seq == event_seq)
    found = connection.execute(query.group_by(attempts.c.endpoint_seq).limit(limit))
    return {endpoint_seq: bool(any_succeeded) for endpoint_seq, any_succeeded in found}


def page(
    connection: Connection,
    account_seq: int | None,
    wanted: DeliveryFilter,
    *,
    limit: int,
    before: tuple[int, ...] | None = None,
) -> Page[Delivery]:
    """List the deliveries of an account, or of all accounts, newest events first.

    The endpoints of the filter must belong to the account.
    """
    low, high = event_times.bounds(connection, after=wanted.created_after, before=wanted.created_before)
    if before is not None:
        high = min(high, before[0])
    source = _source(connection, account_seq, wanted, low, high)
    window_low = _window_low(connection, source, high)
    keys = (
        sa.select(source.event_seq.label("event_seq"), deliveries.c.endpoint_seq)
        .select_from(_joined(source, wanted))
        .where(source.event_seq.between(window_low, high), *source.conditions, *_row_conditions(wanted))
        .order_by(source.event_seq.desc(), deliveries.c.endpoint_seq.desc())
        .limit(limit + 1)
    )
    if before is not None:
        keys = keys.where(sa.or_(source.event_seq < before[0], deliveries.c.endpoint_seq < before[1]))
    found = page_of(_detailed(connection, keys), limit, lambda delivery: (delivery.event_seq, delivery.endpoint_seq))
    if found.next_key is None and window_low > low:
        return Page(found.items, (window_low, 0))
    return found


class Matching(NamedTuple):
    """The number of matching deliveries of an endpoint, and the oldest and newest timestamps of their events."""

    number: int
    oldest_at: int
    newest_at: int


def count_ended(
    connection: Connection, account_seq: int, wanted: DeliveryFilter, *, first: int, last: int, ended_by: int
) -> tuple[dict[int, Matching], int]:
    """Count the deliveries between two events that a replay can resend, by endpoint, in one window.

    They have ended by `ended_by` (Unix ms). Returns the counts, and the lowest event number of the window.
    """
    source = _source(connection, account_seq, wanted, first, last)
    low = _window_low(connection, source, last)
    tables = _joined(source, wanted)
    if tables is deliveries:
        tables = deliveries.join(events, events.c.seq == deliveries.c.event_seq)
    created_at = events.c.created_at
    query = (
        sa.select(deliveries.c.endpoint_seq, sa.func.count(), sa.func.min(created_at), sa.func.max(created_at))
        .select_from(tables)
        .where(
            source.event_seq.between(low, last),
            *source.conditions,
            *_row_conditions(wanted),
            deliveries.c.trigger != int(Trigger.TEST),
            deliveries.c.completed_at <= ended_by,
            sa.or_(events.c.expires_at.is_(None), events.c.expires_at > ended_by),
        )
        .group_by(deliveries.c.endpoint_seq)
    )
    return {row[0]: Matching(*row[1:]) for row in connection.execute(query)}, low


def page_of_attempts(
    connection: Connection, event_seq: int, endpoint_seq: int, *, limit: int, before: tuple[int, ...] | None = None
) -> Page[Attempt]:
    """List the attempts of a delivery, newest first."""
    query = sa.select(attempts).where(attempts.c.event_seq == event_seq, attempts.c.endpoint_seq == endpoint_seq)
    if before is not None:
        query = query.where(attempts.c.number < before[0])
    rows = connection.execute(query.order_by(attempts.c.number.desc()).limit(limit + 1))
    return page_of([_attempt(row) for row in rows], limit, lambda attempt: (attempt.number,))


def start_resend(
    connection: Connection,
    event_seq: int,
    endpoint_seq: int,
    *,
    fence: int | None = None,
    now: int,
    lease_until: int = 0,
    process_id: int = 0,
) -> LeasedDelivery:
    """Lease a delivery with any status for one attempt outside its schedule. Without a process, it becomes due now.

    `fence` is the fence of the current lease, if the caller holds it. If the attempt fails, the delivery returns to its
    earlier status. Raises InFlight if the delivery is leased with another fence, Conflict if it is already being
    resent, has expired, or is a test, and Missing if retention has deleted it.
    """
    own = _own(event_seq, endpoint_seq)
    columns = (
        events.c.id.label("event_id"),
        events.c.type_seq,
        events.c.created_at,
        events.c.expires_at,
        events.c.erased_at,
        events.c.body,
    )
    query = sa.select(deliveries, *columns).join(events, events.c.seq == deliveries.c.event_seq).where(own)
    row = connection.execute(query.with_for_update(of=deliveries)).first()
    if row is None:
        raise Missing
    leased_already = row.status == Status.PENDING and row.lease_owner != 0
    if leased_already and row.fence != fence:
        raise InFlight(IN_FLIGHT)
    if row.trigger == Trigger.TEST:
        raise Conflict("You cannot resend a test delivery. Send another test event.")
    if row.resume_status is not None:
        raise Conflict("The delivery is already being resent. Wait for the outcome of the attempt.")
    if row.erased_at is not None:
        raise Conflict(ERASED)
    if row.expires_at is not None and row.expires_at <= now:
        raise Conflict("You cannot resend this delivery, because the event has expired. Send a new event.")
    values = {
        "status": int(Status.PENDING),
        "due_at": lease_until if process_id else now,
        "lease_owner": process_id,
        # Invalidates the outcome of an attempt under an earlier lease.
        "fence": row.fence + 1,
        "trigger": int(Trigger.RESEND),
        "resume_status": row.status,
        # A delivery that waited in memory was due.
        "resume_due_at": now if leased_already else row.due_at if row.status == Status.PENDING else None,
        # If a replay released the delivery before, this attempt does not belong to it.
        "replay_seq": None,
    }
    connection.execute(sa.update(deliveries).where(own).values(**values))
    return _leased({**row._mapping, **values}, lease_until)  # noqa: SLF001 - public despite its name


def lease_resend(
    connection: Connection, event_seq: int, endpoint_seq: int, *, lease_until: int, process_id: int
) -> LeasedDelivery | None:
    """Lease a delivery that is waiting for its resend, ahead of others of its endpoint.

    Returns None if the delivery is not waiting for a resend.
    """
    waits = (deliveries.c.status == int(Status.PENDING), deliveries.c.lease_owner == 0)
    change = (
        sa.update(deliveries)
        .where(_own(event_seq, endpoint_seq), *waits, deliveries.c.trigger == int(Trigger.RESEND))
        .values(due_at=lease_until, lease_owner=process_id, fence=deliveries.c.fence + 1)
    )
    row = connection.execute(change.returning(*deliveries.c)).first()
    if row is None:
        return None
    event = connection.execute(sa.select(events).where(events.c.seq == event_seq)).one()
    return _leased({**row._mapping, **event._mapping, "event_id": event.id}, lease_until)  # noqa: SLF001 - as above


def _own(event_seq: int, endpoint_seq: int) -> sa.ColumnElement[bool]:
    return sa.and_(deliveries.c.event_seq == event_seq, deliveries.c.endpoint_seq == endpoint_seq)


def _leased(row: Mapping[Any, Any], lease_until: int) -> LeasedDelivery:
    """Return the leased delivery from the columns of a delivery and its event."""
    return LeasedDelivery(
        event_seq=row["event_seq"],
        endpoint_seq=row["endpoint_seq"],
        fence=row["fence"],
        lease_until=lease_until,
        attempts_made=row["attempts_made"],
        scheduled_attempts=row["scheduled_attempts"],
        trigger=Trigger(row["trigger"]),
        event_id=row["event_id"],
        type_seq=row["type_seq"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        body=row["body"],
        resume_status=Status(row["resume_status"]),
        resume_due_at=row["resume_due_at"],
    )


def _source(connection: Connection, account_seq: int | None, wanted: DeliveryFilter, low: int, high: int) -> _Source:
    if wanted.object_id is not None:
        found = event_objects.candidates(connection, account_seq, wanted.object_id, low, high)
        conditions = event_objects.matching(wanted.object_id, found)
        if account_seq is not None:
            conditions.append(events.c.account_seq == account_seq)
        is_full = len(found) == event_objects.CANDIDATES_MAX
        return _Source(events.c.seq, events, conditions, found[-1] if is_full else low)
    if len(wanted.endpoint_seqs) == 1:
        own = deliveries.c.endpoint_seq == wanted.endpoint_seqs[0]
        return _Source(deliveries.c.event_seq, deliveries, [own], low)
    if account_seq is None:
        return _Source(deliveries.c.event_seq, deliveries, [], low)
    if wanted.statuses and _UNSUCCESSFUL.issuperset(wanted.statuses):
        # The literal condition of the partial index, so that both databases use it.
        unsuccessful: list[Any] = [
            deliveries.c.account_seq == account_seq,
            sa.text(status_sql.unsuccessful("deliveries")),
        ]
        return _Source(deliveries.c.event_seq, deliveries, unsuccessful, low)
    conditions = [events.c.account_seq == account_seq]
    if len(wanted.type_seqs) == 1:
        conditions.append(events.c.type_seq == wanted.type_seqs[0])
    return _Source(events.c.seq, events, conditions, low)


def _joined(source: _Source, wanted: DeliveryFilter) -> sa.FromClause:
    if source.tables is events:
        return events.join(deliveries, deliveries.c.event_seq == events.c.seq)
    if not wanted.type_seqs and wanted.created_after is None and wanted.created_before is None:
        return deliveries
    return deliveries.join(events, events.c.seq == deliveries.c.event_seq)


def _row_conditions(wanted: DeliveryFilter) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that the index of the source does not support."""
    conditions: list[sa.ColumnElement[bool]] = []
    for column, values in (
        (deliveries.c.status, wanted.statuses),
        (deliveries.c.last_outcome, wanted.outcomes),
        (deliveries.c.endpoint_seq, wanted.endpoint_seqs),
        (events.c.type_seq, wanted.type_seqs),
    ):
        if values:
            conditions.append(column.in_([int(value) for value in values]))
    if wanted.status_codes:
        conditions.append(responded(wanted.status_codes))
    if not wanted.tests:
        conditions.append(deliveries.c.trigger != int(Trigger.TEST))
    if wanted.created_after is not None:
        conditions.append(events.c.created_at > wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(events.c.created_at < wanted.created_before)
    return conditions


def responded(ranges: Sequence[tuple[int, int]]) -> sa.ColumnElement[bool]:
    """Return the condition that the last attempt of a delivery has a status code in one of the ranges."""
    last = (
        attempts.c.event_seq == deliveries.c.event_seq,
        attempts.c.endpoint_seq == deliveries.c.endpoint_seq,
        attempts.c.number == deliveries.c.attempts_made,
    )
    is_within = sa.or_(*(attempts.c.status_code.between(first, last_code) for first, last_code in ranges))
    # OFFSET prevents PostgreSQL from reading the whole table instead of an index for each row.
    found = sa.select(sa.literal(1)).select_from(attempts).where(*last, is_within).offset(0)
    return found.correlate_except(attempts).exists()


def _window_low(connection: Connection, source: _Source, high: int) -> int:
    """Return the lowest event number that one page scans."""
    query = (
        sa.select(source.event_seq)
        .select_from(source.tables)
        .where(source.event_seq.between(source.low, high), *source.conditions)
        .order_by(source.event_seq.desc())
        .offset(WINDOW_ROWS)
        .limit(1)
    )
    found = connection.scalars(query).first()
    return source.low if found is None else max(source.low, found)


def _detailed(connection: Connection, keys: sa.Select[Any]) -> Sequence[Delivery]:
    # Select the keys of the page first, so that only shown rows are joined.
    key = keys.subquery("page")
    query = _details(
        key.join(
            deliveries,
            sa.and_(deliveries.c.event_seq == key.c.event_seq, deliveries.c.endpoint_seq == key.c.endpoint_seq),
        )
    ).order_by(deliveries.c.event_seq.desc(), deliveries.c.endpoint_seq.desc())
    return [_delivery(row) for row in connection.execute(query)]


def _details(tables: sa.FromClause) -> sa.Select[Any]:
    return sa.select(
        deliveries,
        events.c.id.label("event_id"),
        events.c.created_at,
        events.c.expires_at,
        events.c.object_id,
        events.c.erased_at,
        endpoints.c.id.label("endpoint_id"),
        accounts.c.id.label("account_id"),
        event_types.c.name.label("type"),
    ).select_from(
        tables.join(events, events.c.seq == deliveries.c.event_seq)
        .join(endpoints, endpoints.c.seq == deliveries.c.endpoint_seq)
        .join(accounts, accounts.c.seq == deliveries.c.account_seq)
        .join(event_types, event_types.c.seq == events.c.type_seq)
    )


def _delivery(row: sa.Row[Any]) -> Delivery:
    return Delivery(
        event_seq=row.event_seq,
        endpoint_seq=row.endpoint_seq,
        account_seq=row.account_seq,
        account_id=row.account_id,
        event_id=row.event_id,
        endpoint_id=row.endpoint_id,
        type=row.type,
        status=Status(row.status),
        leased=row.lease_owner != 0,
        due_at=row.due_at,
        attempts_made=row.attempts_made,
        scheduled_attempts=row.scheduled_attempts,
        last_outcome=None if row.last_outcome is None else Outcome(row.last_outcome),
        failed_reason=None if row.failed_reason is None else FailedReason(row.failed_reason),
        created_at=row.created_at,
        completed_at=row.completed_at,
        expires_at=None if row.erased_at is not None else row.expires_at,
        object_id=row.object_id,
        erased_at=row.erased_at,
    )


def _attempt(row: sa.Row[Any]) -> Attempt:
    return Attempt(
        number=row.number,
        trigger=Trigger(row.trigger),
        started_at=row.started_at,
        duration_us=row.duration_us,
        dns_ms=row.dns_ms,
        connect_ms=row.connect_ms,
        tls_ms=row.tls_ms,
        first_byte_ms=row.first_byte_ms,
        status_code=row.status_code,
        outcome=Outcome(row.outcome),
        error=row.error,
        location=row.location,
        remote_address=row.remote_address,
        request_head=mask_request_headers(row.request_head),
        response_head=row.response_head,
        # On SQLite, the body of an erased attempt is padding.
        response_body=row.response_body if row.request_head else b"",
        body_truncated=row.body_truncated,
    )
