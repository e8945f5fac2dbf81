"""Operational events that are not yet stored as events, and the counts of failed deliveries.

The server itself creates operational events, about endpoints and failed deliveries. Add an operational event in the
same transaction as the change that the event reports.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core import ids
from uplift_server.core.deliveries.causes import explain_attempt
from uplift_server.core.deliveries.operational_events import Subject, delivery_facts
from uplift_server.core.events.operational import FAILED_DELIVERIES_EVERY_MS, OperationalKind
from uplift_server.core.lifecycle import FailedReason, Status
from uplift_server.store import attempts, locks
from uplift_server.store.pages import PageRequest
from uplift_server.store.schema import accounts, deliveries, endpoints, event_types, events
from uplift_server.store.schema_operational import failed_deliveries, operational_events


class OperationalEvent(NamedTuple):
    """An operational event that is not yet stored as an event."""

    id: bytes
    kind: OperationalKind
    account_seq: int
    endpoint_seq: int
    """The number of the endpoint that the event describes. The server does not send the event to this endpoint."""
    facts: Mapping[str, object]


class DueCount(NamedTuple):
    """An endpoint for which an operational event about failed deliveries is due."""

    endpoint_seq: int
    account_seq: int


_WAITING: Final = sa.select(operational_events).order_by(operational_events.c.seq).limit(sa.bindparam("limit"))
_DUE_COUNTS: Final = (
    sa.select(failed_deliveries.c.endpoint_seq, failed_deliveries.c.account_seq)
    .where(failed_deliveries.c.due_at <= sa.bindparam("now"))
    .order_by(failed_deliveries.c.due_at)
    .limit(sa.bindparam("limit"))
)


def add(connection: Connection, event: OperationalEvent) -> None:
    """Add an operational event to send."""
    values = {**event._asdict(), "kind": int(event.kind), "facts": json.dumps(dict(event.facts))}
    connection.execute(sa.insert(operational_events).values(values))


def waiting(connection: Connection, *, limit: int) -> list[OperationalEvent]:
    """Return the operational events that are not yet stored as events, oldest first."""
    return [
        OperationalEvent(row.id, OperationalKind(row.kind), row.account_seq, row.endpoint_seq, json.loads(row.facts))
        for row in connection.execute(_WAITING, {"limit": limit})
    ]


def delete(connection: Connection, event_ids: Collection[bytes]) -> None:
    """Delete operational events. Call this function after the operational events are stored as events."""
    connection.execute(sa.delete(operational_events).where(operational_events.c.id.in_(event_ids)))


def due_counts(connection: Connection, *, now: int, limit: int) -> list[DueCount]:
    """Return the endpoints with a due event about failed deliveries, longest overdue first. `now` is in Unix ms."""
    return [DueCount(*row) for row in connection.execute(_DUE_COUNTS, {"now": now, "limit": limit})]


def report_failed(
    connection: Connection,
    endpoint_seqs: Collection[int],
    reported: Collection[int],
    *,
    new_id: Callable[[], bytes],
    now: int,
) -> None:
    """Report the failed deliveries of these endpoints in operational events.

    For each endpoint whose report is due, add an operational event with the count of its failed deliveries. Then reset
    the count to 0, and schedule the endpoint's next report FAILED_DELIVERIES_EVERY_MS after `now`. `reported` contains
    the endpoints whose reports have subscribers. If an endpoint is not in `reported`, if its count is 0, or if the
    endpoint or its latest failed delivery was deleted, delete the count without adding an event.
    """
    locks.take_order(connection, endpoint_seqs)
    own = failed_deliveries.c.endpoint_seq
    query = sa.select(failed_deliveries).where(own.in_(endpoint_seqs), failed_deliveries.c.due_at <= now)
    ended = []
    for row in connection.execute(query.order_by(own).with_for_update()).all():
        facts = _facts(connection, row) if row.failed and row.endpoint_seq in reported else None
        if facts is None:
            ended.append(row.endpoint_seq)
            continue
        kind = OperationalKind.DELIVERY_FAILED
        add(connection, OperationalEvent(new_id(), kind, row.account_seq, row.endpoint_seq, facts))
        restart = sa.update(failed_deliveries).where(own == row.endpoint_seq)
        connection.execute(restart.values(failed=0, due_at=now + FAILED_DELIVERIES_EVERY_MS))
    if ended:
        connection.execute(sa.delete(failed_deliveries).where(own.in_(ended)))


def _facts(connection: Connection, count: sa.Row[Any]) -> dict[str, object] | None:
    """Return the content of the operational event that reports a count of failed deliveries.

    Return None if the endpoint or its latest failed delivery was deleted.
    """
    query = (
        sa.select(
            events.c.id.label("event_id"),
            event_types.c.name.label("event_type"),
            deliveries.c.status,
            deliveries.c.failed_reason,
            deliveries.c.completed_at,
            deliveries.c.attempts_made,
            endpoints.c.id,
            endpoints.c.uid,
            endpoints.c.url,
            endpoints.c.description,
            accounts.c.id.label("account_id"),
            accounts.c.uid.label("account_uid"),
            accounts.c.name.label("account_name"),
        )
        .join_from(deliveries, events, events.c.seq == deliveries.c.event_seq)
        .join(event_types, event_types.c.seq == events.c.type_seq)
        .join(endpoints, endpoints.c.seq == deliveries.c.endpoint_seq)
        .join(accounts, accounts.c.seq == endpoints.c.account_seq)
        .where(
            deliveries.c.event_seq == count.last_event_seq,
            deliveries.c.endpoint_seq == count.endpoint_seq,
            endpoints.c.deleted_at.is_(None),
        )
    )
    row = connection.execute(query).first()
    if row is None:
        return None
    has_failed = row.status == Status.FAILED
    last = attempts.page_of_delivery(connection, count.last_event_seq, count.endpoint_seq, PageRequest(1)).items
    return delivery_facts(
        Subject(
            ids.prefixed(ids.ENDPOINT, row.id),
            row.uid,
            row.url,
            row.description,
            ids.prefixed(ids.ACCOUNT, row.account_id),
            row.account_uid,
            row.account_name,
        ),
        delivery=ids.delivery_id(row.event_id, row.id),
        event=ids.uuid_text(row.event_id),
        event_type=row.event_type,
        failed_reason=FailedReason(row.failed_reason).text if has_failed else None,
        attempts_made=row.attempts_made,
        failed_at=row.completed_at if has_failed else None,
        count=count.failed,
        first_failed_at=count.first_failed_at,
        cause=explain_attempt(last[0]) if last else None,
    )
