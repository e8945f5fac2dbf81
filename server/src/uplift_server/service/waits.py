"""What pending deliveries wait for, as the memory tells it of the process that delivers to their endpoints."""

from collections.abc import Sequence
from typing import NamedTuple

from uplift_server.core.lifecycle import Status
from uplift_server.core.scheduling.waiting import Waiting, WaitingFor, waiting_for
from uplift_server.service.means import Means
from uplift_server.store.records import Delivery, Page


class ShownDelivery(NamedTuple):
    """A delivery with what it waits for; None: an attempt is in flight, or it is not pending."""

    delivery: Delivery
    waiting: Waiting | None = None
    next_probe_at: int | None = None
    """When its endpoint is tried next, while that is only probed (Unix ms)."""


async def shown(means: Means, found: Sequence[Delivery]) -> list[ShownDelivery]:
    """Deliveries with what each waits for."""
    now_ms = means.now()
    firsts: dict[int, int] = {}
    for each in found:
        # Of what waits for its instant the database tells all there is to know.
        if each.status is Status.PENDING and (each.leased or each.due_at is None or each.due_at <= now_ms):
            firsts[each.endpoint_seq] = min(each.event_seq, firsts.get(each.endpoint_seq, each.event_seq))
    in_memory = await means.engine.in_memory(firsts) if firsts else {}

    def show(delivery: Delivery) -> ShownDelivery:
        if delivery.status is not Status.PENDING:
            return ShownDelivery(delivery)
        told = in_memory.get(delivery.endpoint_seq)
        probe_at = means.engine.next_probe_at(delivery.endpoint_seq) if told is None else told.next_probe_at
        # A lease does not say yet that an attempt is in flight: most of what is leased waits for its turn in memory.
        if not delivery.leased:
            waiting = waiting_for(due_at=delivery.due_at, next_probe_at=probe_at, now_ms=now_ms)
        elif told is None or delivery.event_seq > told.through:
            waiting = Waiting(WaitingFor.WORKER, None)
        elif delivery.event_seq in told.waiting:
            waiting = waiting_for(due_at=None, next_probe_at=probe_at, now_ms=now_ms)
        else:
            return ShownDelivery(delivery, None, probe_at)
        return ShownDelivery(delivery, waiting, probe_at)

    return [show(each) for each in found]


async def shown_page(means: Means, page: Page[Delivery]) -> Page[ShownDelivery]:
    """A page of deliveries with what each waits for."""
    return Page(await shown(means, page.items), page.next_key)
