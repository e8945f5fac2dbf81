"""Partitions that start, fill, are counted and expire at times that a test chooses."""

import asyncio
from collections import Counter

import sqlalchemy as sa
from tests.store.bench import NOW, Bench, due, settled

from uplift_server.core.lifecycle import Status
from uplift_server.delivery.maintenance.retention import ROUND_EVERY_MS, Retention
from uplift_server.delivery.shards import LocalShards
from uplift_server.observe.counters import EngineCounters
from uplift_server.store import statistics
from uplift_server.store.partitions import Partition, Partitions
from uplift_server.store.postgres import PostgresDatabase
from uplift_server.store.schema_partitions import NUMBERS, event_partitions

DAY = 86_400_000
KEEP_MS = 28 * DAY


class Clock:
    """A clock that stands still. Its waits end at once."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.database = database
        self.now = 0

    def now_ms(self) -> int:
        return self.now

    async def wait(self, _event: asyncio.Event, _timeout_ms: float) -> None:
        await asyncio.sleep(0)


async def start_partition(bench: Bench, now: int) -> bool:
    assert bench.database.partitions is not None
    return await bench.database.partitions.start_next(now=now, lasts_ms=DAY)


async def store_delivered(
    bench: Bench, count: int = 1, *, at: int = NOW, status: Status = Status.DELIVERED
) -> list[int]:
    """Store events with a delivery to endpoint 1 each, attempted once. Return their numbers."""
    appended = await bench.append(*(bench.event(due(1), created_at=at) for _ in range(count)))
    leased = await bench.lease(1, limit=count)
    await bench.database.settle([settled(each, status) for each in leased])
    return [each.seq for each in appended]


async def rows(bench: Bench, column: sa.Column[int]) -> list[int]:
    """Return the values of a column in ascending order."""
    return await bench.database.read(lambda c: sorted(c.scalars(sa.select(column))))


async def partitions(bench: Bench) -> list[tuple[int, int, bool]]:
    """Return the first event number and the exclusive end of each partition, and whether retention empties it by row.

    Both numbers are returned as multiples of NUMBERS: 2 stands for 2 * NUMBERS.
    """
    query = sa.select(event_partitions.c.first_seq, event_partitions.c.end_seq, event_partitions.c.goes_by_row)
    found = await bench.database.read(lambda c: c.execute(query.order_by("first_seq")).all())
    names = await bench.database.read(
        lambda c: c.exec_driver_sql(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'attempts'::regclass ORDER BY 1"
        ).all()
    )
    assert sorted(f"attempts_{first // NUMBERS}_{end // NUMBERS}" for first, end, _ in found) == [n for (n,) in names]
    return [(first // NUMBERS, end // NUMBERS, rest) for first, end, rest in found]


async def count_all(bench: Bench) -> None:
    """Update the statistics with all stored rows."""
    database = bench.database
    stream_position = await database.stream_position()
    while counted := await database.read(
        lambda c: statistics.count(c, stream_position, now=NOW, rows=1000, changes=1000)
    ):
        await database.write(lambda c: statistics.save(c, counted))
        if not counted.more:
            break


async def find_expired_partition(bench: Bench) -> tuple[Partitions, Partition]:
    """Update the statistics, then return the only partition that has fully expired two days after NOW."""
    await count_all(bench)
    assert bench.database.partitions is not None
    [partition] = await bench.database.partitions.list_droppable(before=NOW + 2 * DAY)
    return bench.database.partitions, partition


async def run_retention(bench: Bench, now: int) -> Counter[str]:
    """Update the statistics, then run one pass of retention at the time `now` (Unix ms)."""
    await count_all(bench)
    database = bench.database
    clock = Clock(database)  # type: ignore[arg-type]
    clock.now = now
    return await Retention(
        database, LocalShards(), clock, EngineCounters(), retention_ms=KEEP_MS, every_ms=ROUND_EVERY_MS
    ).prune_once(asyncio.Event())  # type: ignore[arg-type]
