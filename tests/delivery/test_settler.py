"""The settler discards endpoint health from before an eviction, even if the process is evicted during a write."""

import asyncio
from types import SimpleNamespace
from typing import Any

from uplift_server.core.deliveries.health import Health
from uplift_server.core.scheduling.circuit_breaker import BreakerRule
from uplift_server.delivery.scheduling.due import DueEndpoints
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.delivery.sending.settler import Settler
from uplift_server.delivery.shards import LocalShards
from uplift_server.observe.counters import EngineCounters
from uplift_server.store.errors import Rejected
from uplift_server.store.hot_records import HealthRow

from .world import START, VirtualClock


class RejectingDatabase:
    """Rejects every batch. At the batch `evicts_at`, the process is evicted during the write or directly after it."""

    def __init__(self, shards: LocalShards, *, evicts_at: int, during: bool) -> None:
        self._shards = shards
        self._evicts_at = evicts_at
        self._during = during
        self.batches: list[tuple[int, list[int]]] = []
        """For each batch: the process ID, and the numbers of the endpoints whose health the batch contains."""

    async def settle(self, _batch: list[Any], health: list[HealthRow], *, process_id: int) -> frozenset[Any]:
        self.batches.append((process_id, [row.endpoint_seq for row in health]))
        if len(self.batches) == self._evicts_at:
            loop = asyncio.get_running_loop()
            # In the second turn, the settler has handled the response, but not started the next write.
            loop.call_soon(self._evict if self._during else lambda: loop.call_soon(self._evict))
        raise Rejected("a defect")

    def _evict(self) -> None:
        self._shards.membership_id += 1


async def settle_during_eviction(evicts_at: int, *, during: bool) -> list[tuple[int, list[int]]]:
    """Write the health of two endpoints to a database that fails. Return the batches. Fail if a callback fails."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    shards, clock, due = LocalShards(), VirtualClock(), DueEndpoints()
    shards.membership_id = 1
    database: Any = RejectingDatabase(shards, evicts_at=evicts_at, during=during)
    breaker = BreakerRule(0, 1)
    lanes = DeliveryLanes(clock, due, shards, in_flight_max=1, endpoint_in_flight_max=1, breaker=breaker)
    settler = Settler(database, lanes, due, shards, clock, EngineCounters(), lambda _lines: None)
    for seq in (1, 2):
        endpoint: Any = SimpleNamespace(seq=seq, health=Health(3, START, None, START, None, 0, None))
        settler.keep_health(endpoint)
    settler.write_health()
    async with asyncio.timeout(5):
        for _ in range(50):
            await asyncio.sleep(0)
    assert failures == []
    return list(database.batches)


async def test_health_from_before_an_eviction_is_not_stored_after_it() -> None:
    batches = await settle_during_eviction(1, during=True)
    assert batches[0] == (1, [1, 2])
    assert all(process_id == 1 or not endpoints for process_id, endpoints in batches)


async def test_parts_of_a_rejected_batch_are_discarded_by_an_eviction() -> None:
    batches = await settle_during_eviction(2, during=False)
    assert [endpoints for _, endpoints in batches[:2]] == [[1, 2], [1]]
    assert all(process_id == 1 or not endpoints for process_id, endpoints in batches)
