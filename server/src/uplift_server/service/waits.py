"""What pending deliveries wait for, as the engine's memory tells it: the database is not asked again."""

from collections.abc import Sequence
from typing import NamedTuple

from uplift_server.core.deliveries import Status
from uplift_server.core.waits import Waiting, waiting_for
from uplift_server.service.means import Means
from uplift_server.store.records import Delivery, Page


class ShownDelivery(NamedTuple):
    """A delivery with what it waits for; None: an attempt is in flight, or it is not pending."""

    delivery: Delivery
    waiting: Waiting | None = None


def shown(means: Means, found: Sequence[Delivery]) -> list[ShownDelivery]:
    """Deliveries with what each waits for."""
    pending = [each for each in found if each.status is Status.PENDING]
    engine, now_ms = means.engine, means.now()
    probes = {seq: engine.next_probe_at(seq) for seq in {each.endpoint_seq for each in pending}}
    # A lease does not say yet that an attempt is in flight: most of what is leased waits for its turn in memory.
    in_memory = {seq: engine.waiting_events(seq) for seq in {each.endpoint_seq for each in pending if each.leased}}

    def waiting(delivery: Delivery) -> Waiting | None:
        if delivery.status is not Status.PENDING:
            return None
        if delivery.leased and delivery.event_seq not in in_memory[delivery.endpoint_seq]:
            return None
        due_at = None if delivery.leased else delivery.due_at
        return waiting_for(due_at=due_at, next_probe_at=probes[delivery.endpoint_seq], now_ms=now_ms)

    return [ShownDelivery(each, waiting(each)) for each in found]


def shown_page(means: Means, page: Page[Delivery]) -> Page[ShownDelivery]:
    """A page of deliveries with what each waits for."""
    return Page(shown(means, page.items), page.next_key)
