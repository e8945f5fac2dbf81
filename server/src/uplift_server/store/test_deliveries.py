"""Tests of endpoints: events with one delivery each, which is attempted once, at once and never again.

A test's delivery is known by its trigger, which stays with it. It is stored as failed and, in the same transaction,
leased as if it were resent: whatever keeps the attempt from being made leads back to that.
"""

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.store.deliveries import find, page_of_attempts
from uplift_server.store.hot_records import LeasedDelivery, NewDelivery, NewEvent
from uplift_server.store.records import Attempt, Delivery
from uplift_server.store.schema import deliveries

_FIRST_FENCE = 1


def owed(endpoint_seq: int) -> NewDelivery:
    """The delivery of a test's event, until it is begun."""
    return NewDelivery(endpoint_seq, Status.FAILED, None)


def begin(connection: Connection, event: NewEvent, event_seq: int, *, lease_until: int, owner: int) -> LeasedDelivery:
    """Lease the one delivery of an event stored in this very transaction, for the attempt that is the test."""
    [delivery] = event.deliveries
    leased = LeasedDelivery(
        event_seq=event_seq,
        endpoint_seq=delivery.endpoint_seq,
        fence=_FIRST_FENCE,
        lease_until=lease_until,
        attempts_made=0,
        scheduled_attempts=0,
        trigger=Trigger.TEST,
        event_id=event.id,
        type_seq=event.type_seq,
        created_at=event.created_at,
        expires_at=event.expires_at,
        body=event.body,
        resume_status=Status.FAILED,
    )
    connection.execute(
        sa.update(deliveries)
        .where(deliveries.c.event_seq == event_seq, deliveries.c.endpoint_seq == delivery.endpoint_seq)
        .values(
            status=int(Status.PENDING),
            due_at=lease_until,
            lease_owner=owner,
            fence=leased.fence,
            trigger=int(leased.trigger),
            resume_status=int(Status.FAILED),
        )
    )
    return leased


def outcome(
    connection: Connection, account_seq: int, event_id: bytes, endpoint_id_tail: bytes
) -> tuple[Delivery, Attempt | None] | None:
    """A test's delivery, and its attempt once that is over; None where it was pruned."""
    for delivery in find(connection, account_seq, event_id, endpoint_id_tail):
        attempts = page_of_attempts(connection, delivery.event_seq, delivery.endpoint_seq, limit=1).items
        return delivery, attempts[0] if attempts else None
    return None


def is_trial(connection: Connection, event_seq: int) -> bool:
    """Whether an event was made to test one endpoint."""
    query = sa.select(deliveries.c.event_seq).where(
        deliveries.c.event_seq == event_seq, deliveries.c.trigger == int(Trigger.TEST)
    )
    return connection.execute(query.limit(1)).first() is not None
