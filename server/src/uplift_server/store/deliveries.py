"""Reads deliveries, and starts resends."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.ids import delivery_id
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.store import event_times, status_sql
from uplift_server.store.delivery_search import (
    ENDPOINT_TAIL,
    in_range,
    joined,
    narrowed,
    row_conditions,
    source_of,
    window_of,
)
from uplift_server.store.errors import Conflict, InFlight, Missing
from uplift_server.store.hot_records import LeasedDelivery
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Delivery, DeliveryFilter, Page
from uplift_server.store.schema import accounts, attempts, deliveries, endpoints, event_types, events

_BLOCKED: Final = sa.text(status_sql.blocked("deliveries"))
_ORDERED: Final = sa.text(status_sql.ordered("deliveries"))
_OTHERS: Final = deliveries.alias("others")


def _first_other(condition: str) -> sa.ScalarSelect[int]:
    """Return a subquery for the event number of the first open delivery that meets a condition.

    The subquery searches the order group of the delivery in the outer query.
    """
    own = (_OTHERS.c.endpoint_seq == deliveries.c.endpoint_seq, _OTHERS.c.order_group == deliveries.c.order_group)
    query = sa.select(_OTHERS.c.event_seq).where(*own, sa.text(status_sql.ordered("others")), sa.text(condition))
    return query.order_by(_OTHERS.c.event_seq).limit(1).correlate(deliveries).scalar_subquery()


# A blocked delivery waits for the delivery in its order group that has a due time, or else for a held delivery.
_BLOCKER: Final = sa.func.coalesce(_first_other("others.due_at IS NOT NULL"), _first_other("others.due_at IS NULL"))
_BLOCKERS: Final = (
    sa.select(
        deliveries.c.event_seq,
        deliveries.c.endpoint_seq,
        events.c.id.label("event_id"),
        endpoints.c.id.label("endpoint_id"),
    )
    .select_from(
        deliveries.join(events, events.c.seq == _BLOCKER).join(endpoints, endpoints.c.seq == deliveries.c.endpoint_seq)
    )
    .where(_BLOCKED)
)
ERASED: Final = "You cannot resend this delivery, because the event was erased. Send a new event."
BLOCKED: Final = (
    "You cannot resend this delivery yet: to keep the order, it waits for {}. Cancel that delivery to skip it,"
    " or wait until it ends."
)
IN_FLIGHT: Final = "An attempt is in flight. Wait for its outcome, then try again."


def find(connection: Connection, account_seq: int | None, event_id: bytes, endpoint_id_tail: bytes) -> list[Delivery]:
    """Find the delivery of an event to the endpoint whose ID ends with these bytes.

    If `account_seq` is None, return up to two deliveries, so that the caller can detect an ambiguous event ID. Event
    IDs that emitters choose are unique only within an account.
    """
    query = _details(deliveries).where(events.c.id == event_id, ENDPOINT_TAIL.in_([endpoint_id_tail]))
    if account_seq is not None:
        query = query.where(events.c.account_seq == account_seq)
    return _with_blockers(connection, [_delivery(row) for row in connection.execute(query.limit(2))])


def find_by_keys(connection: Connection, keys: Collection[tuple[int, int]]) -> dict[tuple[int, int], Delivery]:
    """Return the deliveries with these keys. A key consists of an event number and an endpoint number."""
    query = _details(deliveries).where(_has_one_of(keys))
    found = _with_blockers(connection, [_delivery(row) for row in connection.execute(query)])
    return {(each.event_seq, each.endpoint_seq): each for each in found}


def page_of_event(connection: Connection, event_seq: int, request: PageRequest) -> Page[Delivery]:
    """Return a page of an event's deliveries, in endpoint order."""
    own = deliveries.c.event_seq == event_seq
    keys: sa.Select[Any] = sa.select(deliveries.c.event_seq, deliveries.c.endpoint_seq).where(own)
    keys = request.of(keys, deliveries.c.endpoint_seq)
    return request.page(_detailed(connection, keys, request), lambda delivery: (delivery.endpoint_seq,))


def endpoints_of_event(connection: Connection, event_seq: int) -> set[int]:
    """Return the numbers of the endpoints that have a delivery for an event."""
    return set(connection.scalars(sa.select(deliveries.c.endpoint_seq).where(deliveries.c.event_seq == event_seq)))


def endpoint_ids_of_events(connection: Connection, event_seqs: Collection[int]) -> dict[int, list[bytes]]:
    """Return, for each event, the IDs of the endpoints that have a delivery, oldest endpoints first."""
    query = (
        sa.select(deliveries.c.event_seq, endpoints.c.id)
        .join(endpoints, endpoints.c.seq == deliveries.c.endpoint_seq)
        .where(deliveries.c.event_seq.in_(event_seqs))
        .order_by(deliveries.c.event_seq, deliveries.c.endpoint_seq)
    )
    found: dict[int, list[bytes]] = {seq: [] for seq in event_seqs}
    for row in connection.execute(query):
        found[row.event_seq].append(row.id)
    return found


def successes_by_endpoint(connection: Connection, event_seq: int, *, limit: int) -> dict[int, bool]:
    """Return, by endpoint number, whether an attempt to deliver the event succeeded.

    The result contains up to `limit` endpoints that have attempts, even if retention has deleted their deliveries.
    """
    succeeded = sa.func.max(sa.case((attempts.c.outcome == Outcome.DELIVERED, 1), else_=0))
    query = sa.select(attempts.c.endpoint_seq, succeeded).where(attempts.c.event_seq == event_seq)
    found = connection.execute(query.group_by(attempts.c.endpoint_seq).limit(limit))
    return {endpoint_seq: bool(any_succeeded) for endpoint_seq, any_succeeded in found}


def page(
    connection: Connection, account_seq: int | None, wanted: DeliveryFilter, request: PageRequest
) -> Page[Delivery]:
    """Return a page of deliveries for an account, or for all accounts, in event order.

    The endpoints in the filter must belong to the account.
    """
    bounds = event_times.bounds(connection, after=wanted.created_after, before=wanted.created_before)
    window = window_of(connection, account_seq, wanted, request, bounds)
    key = (window.event_seq, deliveries.c.endpoint_seq)
    keys = request.of(sa.select(window.event_seq.label("event_seq"), key[1]), *key)
    rows = _detailed(connection, keys.select_from(window.tables).where(*window.conditions), request)
    return request.page(rows, lambda delivery: (delivery.event_seq, delivery.endpoint_seq), window.read_to)


def count_blocked(connection: Connection, endpoint_seq: int, order_group: int, *, limit: int) -> int:
    """Count the blocked deliveries in an order group. The count stops at a limit."""
    own = (deliveries.c.endpoint_seq == endpoint_seq, deliveries.c.order_group == order_group)
    found = sa.select(deliveries.c.event_seq).where(*own, _ORDERED, _BLOCKED).limit(limit).subquery("blocked")
    return connection.scalar(sa.select(sa.func.count()).select_from(found)) or 0


class Matching(NamedTuple):
    """The number of an endpoint's deliveries that match a filter, and their oldest and newest event timestamps."""

    number: int
    oldest_at: int
    newest_at: int


def count_ended(
    connection: Connection, account_seq: int, wanted: DeliveryFilter, *, first: int, last: int, ended_by: int
) -> tuple[dict[int, Matching], int]:
    """Count the ended deliveries that a replay can resend, for each endpoint.

    Scan one window of event numbers, from `last` downward. Count only deliveries that ended at `ended_by` (Unix ms) or
    earlier. Return the counts by endpoint number, and the lowest event number of the window.
    """
    source = source_of(connection, account_seq, wanted, first, last)
    low, _ = narrowed(connection, source, first, last)
    tables = joined(source, wanted)
    if tables is deliveries:
        tables = deliveries.join(events, events.c.seq == deliveries.c.event_seq)
    created_at = events.c.created_at
    query = (
        sa.select(deliveries.c.endpoint_seq, sa.func.count(), sa.func.min(created_at), sa.func.max(created_at))
        .select_from(tables)
        .where(
            *in_range(connection, source, tables, low, last),
            *source.conditions,
            *row_conditions(wanted),
            deliveries.c.trigger != int(Trigger.TEST),
            deliveries.c.completed_at <= ended_by,
            sa.or_(events.c.expires_at.is_(None), events.c.expires_at > ended_by),
        )
        .group_by(deliveries.c.endpoint_seq)
    )
    return {row[0]: Matching(*row[1:]) for row in connection.execute(query)}, low


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
    """Lease a delivery with any status for one attempt outside its retry schedule.

    If `process_id` is 0, do not lease the delivery, but make it due now. If the caller already holds the lease, `fence`
    is the fence of this lease. If the attempt fails, the delivery returns to its earlier status. Raises InFlight if the
    delivery is leased with another fence, or Missing if retention has deleted it. Raises Conflict if the delivery is
    blocked, is already being resent or is a test delivery, or if its event has expired or was erased.
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
    if row.status == Status.PENDING and row.due_at is None:
        blocker = connection.execute(_BLOCKERS.where(own)).first()
        other = "another delivery" if blocker is None else delivery_id(blocker.event_id, blocker.endpoint_id)
        raise Conflict(BLOCKED.format(other))
    if row.erased_at is not None:
        raise Conflict(ERASED)
    if row.expires_at is not None and row.expires_at <= now:
        raise Conflict("You cannot resend this delivery, because the event has expired. Send a new event.")
    values = {
        "status": int(Status.PENDING),
        "due_at": lease_until if process_id else now,
        "lease_owner": process_id,
        # The new fence invalidates the outcome of an attempt under an earlier lease.
        "fence": row.fence + 1,
        "trigger": int(Trigger.RESEND),
        "resume_status": row.status,
        # A leased delivery that waited in memory was already due, so it is due immediately if the resend fails.
        "resume_due_at": now if leased_already else row.due_at if row.status == Status.PENDING else None,
        # Even if a replay released the delivery earlier, this attempt does not belong to the replay.
        "replay_seq": None,
    }
    connection.execute(sa.update(deliveries).where(own).values(**values))
    return _leased({**row._mapping, **values}, lease_until)  # noqa: SLF001 - public despite its name


def lease_resend(
    connection: Connection, event_seq: int, endpoint_seq: int, *, lease_until: int, process_id: int
) -> LeasedDelivery | None:
    """Lease a delivery that is waiting to be resent, ahead of other deliveries of its endpoint.

    Return None if the delivery is not waiting to be resent.
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


def _with_blockers(connection: Connection, found: list[Delivery]) -> list[Delivery]:
    """Set `blocked_by` on blocked deliveries. Return all deliveries."""
    blocked = [each for each in found if each.is_blocked]
    if not blocked:
        return found
    query = _BLOCKERS.where(_has_one_of([(each.event_seq, each.endpoint_seq) for each in blocked]))
    blockers = {
        (row.event_seq, row.endpoint_seq): delivery_id(row.event_id, row.endpoint_id)
        for row in connection.execute(query)
    }
    return [replace(each, blocked_by=blockers.get((each.event_seq, each.endpoint_seq))) for each in found]


def _own(event_seq: int, endpoint_seq: int) -> sa.ColumnElement[bool]:
    return sa.and_(deliveries.c.event_seq == event_seq, deliveries.c.endpoint_seq == endpoint_seq)


def _has_one_of(keys: Collection[tuple[int, int]]) -> sa.ColumnElement[bool]:
    # SQLite searches the index for the rows of a subquery, but not for a list of pairs.
    columns = (sa.column("event_seq", sa.BigInteger), sa.column("endpoint_seq", sa.BigInteger))
    listed = sa.values(*columns).data(list(keys)).cte("listed")
    return sa.tuple_(deliveries.c.event_seq, deliveries.c.endpoint_seq).in_(sa.select(listed))


def _leased(row: Mapping[Any, Any], lease_until: int) -> LeasedDelivery:
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
        order_group=row["order_group"],
    )


def _detailed(connection: Connection, keys: sa.Select[Any], request: PageRequest) -> Sequence[Delivery]:
    # Select the page's keys first, so that only shown rows are joined.
    key = keys.subquery("page")
    query = _details(
        key.join(
            deliveries,
            sa.and_(deliveries.c.event_seq == key.c.event_seq, deliveries.c.endpoint_seq == key.c.endpoint_seq),
        )
    ).order_by(request.ordered(deliveries.c.event_seq), request.ordered(deliveries.c.endpoint_seq))
    return _with_blockers(connection, [_delivery(row) for row in connection.execute(query)])


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
        is_test=row.trigger == Trigger.TEST,
        order_group=row.order_group,
    )
