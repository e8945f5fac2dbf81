"""The reasons why pending deliveries are waiting.

The reasons come from data in the database and in this process's memory.
"""

from collections.abc import Sequence
from typing import NamedTuple

from uplift_server.core.lifecycle import Status
from uplift_server.core.scheduling.waiting import Waiting, WaitingFor, waiting_for
from uplift_server.service.context import ServiceContext
from uplift_server.store.records import Delivery, Page


class ShownDelivery(NamedTuple):
    """A delivery, and the reason why it is waiting.

    `waiting` is None if the delivery is not pending, or if its attempt is in flight.
    """

    delivery: Delivery
    waiting: Waiting | None = None
    next_probe_at: int | None = None
    """When the next probe is due (Unix ms). Set only while the endpoint's circuit breaker is open."""


def show_deliveries(context: ServiceContext, found: Sequence[Delivery]) -> list[ShownDelivery]:
    """Return deliveries with the reasons why they are waiting."""
    engine, now_ms = context.engine, context.now()

    def show(delivery: Delivery) -> ShownDelivery:
        if delivery.status is not Status.PENDING:
            return ShownDelivery(delivery)
        probe_at = engine.status.next_probe_at(delivery.endpoint_seq)
        if delivery.is_blocked:
            return ShownDelivery(delivery, Waiting(WaitingFor.ORDER, None), probe_at)
        if not delivery.leased:
            waiting = waiting_for(due_at=delivery.due_at, next_probe_at=probe_at, now_ms=now_ms)
            return ShownDelivery(delivery, waiting, probe_at)
        # Most leased deliveries wait in memory and are not in flight.
        in_memory = engine.status.waiting_events(delivery.endpoint_seq)
        if in_memory is None:
            return ShownDelivery(delivery, Waiting(WaitingFor.WORKER, None), probe_at)
        if delivery.event_seq not in in_memory:
            return ShownDelivery(delivery, None, probe_at)
        return ShownDelivery(delivery, waiting_for(due_at=None, next_probe_at=probe_at, now_ms=now_ms), probe_at)

    return [show(each) for each in found]


def show_page(context: ServiceContext, page: Page[Delivery]) -> Page[ShownDelivery]:
    """Return a page of deliveries with the reasons why they are waiting."""
    return page.of(show_deliveries(context, page.items))
