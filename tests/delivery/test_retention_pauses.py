"""Pauses between batches while a partition is deleted: longer after slow batches, shorter with a backlog."""

import asyncio
from typing import Final

import pytest
from structlog.testing import capture_logs
from tests.engines import Place

from uplift_server.delivery.maintenance.retention import (
    BEHIND_PARTITIONS,
    PARTITION_DURATION_DIVISOR,
    PARTITION_PAUSE_MS_MAX,
    PARTITION_PAUSE_MS_MIN,
    PAUSE_FACTOR,
    PLANNED_PAUSE_MS_MAX,
    ROUND_EVERY_MS,
    Retention,
)
from uplift_server.delivery.shards import LocalShards
from uplift_server.observe.counters import EngineCounters
from uplift_server.store.cleanup import Key
from uplift_server.store.errors import Rejected
from uplift_server.store.partitions import Batch, Partition

from .test_retention import prune
from .world import DAY, MINUTE, SECOND, VirtualClock, World

KEEP_MS = 28 * DAY
PLANNED_MS = DAY // PARTITION_DURATION_DIVISOR
"""The planned sum of the pauses while one partition is deleted (ms)."""
BATCHES = 3
"""The number of batches with rows in each partition. The next batch finds no rows."""
HUGE: Final = 10**12
"""The number of event numbers in a partition, so large that each batch covers a tiny share of them."""


class OldPartitions:
    """Expired partitions. Each batch takes `takes_ms`, and covers one of the `numbers` in a partition."""

    def __init__(self, clock: VirtualClock, count: int, takes_ms: int, numbers: int, batches: int) -> None:
        self._clock = clock
        self._old = [Partition(number * batches, (number + 1) * batches) for number in range(count)]
        self._takes_ms = takes_ms
        self._numbers = numbers
        self._batches = batches
        self._last_end: int | None = None
        self.pauses: list[int] = []
        """The duration of each pause between two batches of a partition (ms)."""
        self.dropped: list[Partition] = []
        self.checks = 0
        """The number of checks whether the next partition must start."""

    async def start_next(self, *, now: int, lasts_ms: int) -> bool:
        self.checks += 1
        return False

    async def list_droppable(self, *, before: int) -> list[Partition]:
        return [each for each in self._old if each not in self.dropped]

    async def mark_for_row_cleanup(self, *, before: int, lasts_ms: int) -> None: ...

    async def first_droppable_seq(self) -> int:
        return 0

    async def count_seqs(self, partition: Partition) -> int:
        return self._numbers

    async def delete_ended_deliveries(self, partition: Partition, *, after: Key | None) -> Batch:
        last = partition.first_seq if after is None else after[0]
        if after is not None and self._last_end is not None:
            self.pauses.append(self._clock.now - self._last_end)
        self._clock.now += self._takes_ms
        self._last_end = self._clock.now
        return Batch(100, (last + 1,)) if last < partition.end_seq else Batch(0, None)

    async def drop(self, partition: Partition) -> int:
        self.dropped.append(partition)
        return 300

    async def drop_empty(self) -> None: ...

    async def delete_leftovers(self, before_seq: int, *, after: Key | None) -> Batch:
        return Batch(0, None)


async def clean(place: Place, *, partitions: int, takes_ms: int, numbers: int = HUGE) -> OldPartitions:
    """Run a pass of retention over old partitions."""
    async with World(place) as world:
        old = OldPartitions(world.clock, partitions, takes_ms, numbers, BATCHES)
        world.database.partitions = old
        counters = EngineCounters()
        retention = Retention(
            world.database, LocalShards(), world.clock, counters, retention_ms=KEEP_MS, every_ms=ROUND_EVERY_MS
        )
        assert await prune(world, retention) == {"events": 300 * partitions}
        assert len(old.dropped) == partitions
        assert len(old.pauses) == BATCHES * partitions
        assert +counters.removed == {"events": 300 * partitions, "deliveries": 100 * BATCHES * partitions}
        return old


async def test_retention_continues_after_a_defect(place: Place) -> None:
    async with World(place) as world:
        old = OldPartitions(world.clock, 1, 4, HUGE, BATCHES)
        world.database.partitions = old
        counters = EngineCounters()
        retention = Retention(
            world.database, LocalShards(), world.clock, counters, retention_ms=KEEP_MS, every_ms=ROUND_EVERY_MS
        )
        drop, rejected = old.drop, []
        began_at = world.clock.now + MINUTE

        async def drop_or_reject(partition: Partition) -> int:
            # The metric has a value even if retention never completes a pass.
            assert counters.retention_round_at == began_at
            if not rejected:
                rejected.append(partition)
                raise Rejected("a defect")
            return await drop(partition)

        old.drop = drop_or_reject  # type: ignore[method-assign]
        with capture_logs() as logs:
            running = asyncio.create_task(retention.run(asyncio.Event()))
            await world.run_for(10 * MINUTE)
        running.cancel()
        assert old.dropped == rejected
        assert counters.retention_round_at is not None
        assert counters.retention_round_at > began_at
        assert [line["log_level"] for line in logs if line["event"] == "retention failed"] == ["error"]


@pytest.mark.parametrize(
    ("takes_ms", "pause_ms"), [(0, PARTITION_PAUSE_MS_MIN), (4, 34), (1000, PARTITION_PAUSE_MS_MAX)]
)
async def test_a_longer_batch_gets_a_longer_pause(place: Place, takes_ms: int, pause_ms: int) -> None:
    old = await clean(place, partitions=1, takes_ms=takes_ms)
    assert set(old.pauses) == {pause_ms}


@pytest.mark.parametrize(
    ("numbers", "pause_ms"), [(PLANNED_MS // 250, 250), (BATCHES, PLANNED_PAUSE_MS_MAX), (0, PLANNED_PAUSE_MS_MAX)]
)
async def test_pauses_follow_the_plan_without_a_backlog(place: Place, numbers: int, pause_ms: int) -> None:
    old = await clean(place, partitions=1, takes_ms=4, numbers=numbers)
    assert set(old.pauses) == {pause_ms}


async def test_more_expired_partitions_get_shorter_pauses(place: Place) -> None:
    old = await clean(place, partitions=BEHIND_PARTITIONS + 2, takes_ms=4)
    assert old.pauses == sorted(old.pauses)
    assert set(old.pauses[: 3 * BATCHES]) == {PARTITION_PAUSE_MS_MIN}
    assert set(old.pauses[-BATCHES:]) == {4 * PAUSE_FACTOR * (BEHIND_PARTITIONS - 1) // BEHIND_PARTITIONS}


async def test_a_backlog_of_partitions_gets_the_shortest_pauses(place: Place) -> None:
    """With a backlog, the pauses do not follow the plan for one partition."""
    old = await clean(place, partitions=BEHIND_PARTITIONS + 2, takes_ms=4, numbers=10_000)
    assert set(old.pauses[: 3 * BATCHES]) == {PARTITION_PAUSE_MS_MIN}
    assert min(old.pauses[3 * BATCHES :]) > PARTITION_PAUSE_MS_MIN


async def test_other_tables_are_cleaned_every_minute_during_a_large_partition(place: Place) -> None:
    batches = 1000
    async with World(place) as world:
        old = OldPartitions(world.clock, 1, 4, batches, batches)
        world.database.partitions = old
        retention = Retention(
            world.database, LocalShards(), world.clock, EngineCounters(), retention_ms=KEEP_MS, every_ms=ROUND_EVERY_MS
        )
        stopping = asyncio.Event()
        running = asyncio.create_task(retention.run(stopping))
        took_ms = batches * (PLANNED_PAUSE_MS_MAX + 4)
        await world.run_for(ROUND_EVERY_MS + took_ms + SECOND)
        assert [len(old.dropped), len(old.pauses)] == [1, batches], "a batch did not run exactly once"
        assert max(old.pauses) == PLANNED_PAUSE_MS_MAX, "a batch waited for the next pass"
        assert old.checks >= took_ms // (ROUND_EVERY_MS + SECOND)
        stopping.set()
        await running
