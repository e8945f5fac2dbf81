"""Test events. A test event has one delivery, which the server attempts immediately and only once.

The delivery is stored as failed, and leased in the same transaction, like a resend. If the attempt does not succeed,
the status of the delivery returns to failed. The `trigger` of a test delivery never changes.
"""

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.store.attempts import page_of_delivery
from uplift_server.store.deliveries import find
from uplift_server.store.hot_records import LeasedDelivery, NewDelivery, NewEvent
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Attempt, Delivery
from uplift_server.store.schema import deliveries, endpoints

_FIRST_FENCE = 1


def new_delivery(endpoint_seq: int) -> NewDelivery:
    """Return the delivery to store with a test event, before `begin` leases it."""
    return NewDelivery(endpoint_seq, Status.FAILED, None)


def begin(
    connection: Connection,
    event: NewEvent,
    event_seq: int,
    *,
    lease_until: int,
    process_id: int,
    wrong_signature: bool = False,
) -> LeasedDelivery:
    """Lease the delivery of a test event, and set the endpoint's `tested_at`.

    The current transaction must have stored the event.
    """
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
        wrong_signature=wrong_signature,
    )
    connection.execute(
        sa.update(deliveries)
        .where(deliveries.c.event_seq == event_seq, deliveries.c.endpoint_seq == delivery.endpoint_seq)
        .values(
            status=int(Status.PENDING),
            due_at=lease_until,
            lease_owner=process_id,
            fence=leased.fence,
            trigger=int(leased.trigger),
            resume_status=int(Status.FAILED),
        )
    )
    connection.execute(
        sa.update(endpoints).where(endpoints.c.seq == delivery.endpoint_seq).values(tested_at=event.created_at)
    )
    return leased


def get_result(
    connection: Connection, account_seq: int, event_id: bytes, endpoint_id_tail: bytes
) -> tuple[Delivery, Attempt | None] | None:
    """Return the delivery of a test event, and its attempt if the attempt has ended.

    Return None if retention has deleted the test event.
    """
    for delivery in find(connection, account_seq, event_id, endpoint_id_tail):
        attempts = page_of_delivery(connection, delivery.event_seq, delivery.endpoint_seq, PageRequest(1)).items
        return delivery, attempts[0] if attempts else None
    return None
