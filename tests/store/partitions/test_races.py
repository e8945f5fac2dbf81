"""Partitions start and are dropped during traffic, and while another process does the same."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs
from tests.store.bench import NOW, Bench, due, settled

from uplift_server.core.ids import uuid7
from uplift_server.core.lifecycle import Status
from uplift_server.store.errors import Unavailable
from uplift_server.store.partitions import Partition
from uplift_server.store.postgres.partitions import ASIDE_LOCK, PostgresPartitions, _copy_aside
from uplift_server.store.schema import attempts, deliveries, events
from uplift_server.store.schema_partitions import NUMBERS

from .partition_days import (
    DAY,
    KEEP_MS,
    count_all,
    find_expired_partition,
    rows,
    run_retention,
    start_partition,
    store_delivered,
)


async def test_a_partition_starts_under_traffic(bench: Bench) -> None:
    """Every event finds its partition at any time, and numbers increase."""
    await store_delivered(bench)
    stopping = asyncio.Event()

    async def append_events() -> list[int]:
        seqs = []
        while not stopping.is_set():
            [appended] = await bench.append(bench.event(due(1)))
            seqs.append(appended.seq)
        return seqs

    appending = [asyncio.create_task(append_events()) for _ in range(8)]
    for day in range(1, 6):
        await asyncio.sleep(0.05)
        assert await start_partition(bench, NOW + day * DAY)
    stopping.set()
    seqs = [await each for each in appending]
    assert all(partitions == sorted(partitions) for partitions in seqs)
    assert {seq // NUMBERS for partitions in seqs for seq in partitions} >= {0, 1, 2, 3, 4}
    assert await rows(bench, events.c.seq) == sorted([1, *(seq for partitions in seqs for seq in partitions)])


async def test_a_locked_table_does_not_block_other_statements(bench: Bench, other_connection: Any) -> None:
    """The operation that would wait for the lock fails, and succeeds later."""
    await store_delivered(bench)
    async with other_connection.transaction():
        await other_connection.execute("LOCK TABLE events IN ROW EXCLUSIVE MODE")
        for _ in range(2):
            with pytest.raises(Unavailable):
                await start_partition(bench, NOW + DAY)
        assert await store_delivered(bench) == [2]
    assert await start_partition(bench, NOW + DAY)
    [seq] = await store_delivered(bench, at=NOW + DAY)
    async with other_connection.transaction():
        await other_connection.fetch("SELECT FROM events LIMIT 1")
        assert not (await run_retention(bench, NOW + 2 * DAY + KEEP_MS))["events"]
        assert await rows(bench, events.c.seq) == [1, 2, seq]
    assert (await run_retention(bench, NOW + 2 * DAY + KEEP_MS))["events"] == 2
    assert await rows(bench, events.c.seq) == [seq]


async def test_concurrent_events_with_one_chosen_id_are_stored_once(bench: Bench) -> None:
    for day in range(1, 4):
        await store_delivered(bench)
        chosen = uuid7(NOW, bytes([day]) * 10)
        event = bench.event(due(1), chosen_id=chosen)
        *results, has_started = await asyncio.gather(
            *(bench.database.append([[event]]) for _ in range(20)), start_partition(bench, NOW + day * DAY)
        )
        assert has_started
        assert len({appended.seq for [[appended]] in results}) == 1  # type: ignore[misc]


async def test_a_delivery_leased_during_a_drop_keeps_its_event(bench: Bench) -> None:
    """Deliveries are leased and settled while retention runs, until it has deleted all events of the partition."""
    await store_delivered(bench, 50)
    await bench.append(*(bench.event(due(2)) for _ in range(50)))
    await start_partition(bench, NOW + DAY)
    await store_delivered(bench, at=NOW + DAY)

    async def work() -> int:
        count = 0
        while count < 50:
            leased = await bench.lease(2, limit=1)
            assert all(each.body for each in leased)
            assert not await bench.database.settle([settled(each, Status.DELIVERED) for each in leased])
            count += len(leased)
        # Retention keeps the event of the last counted attempt, so add an attempt in the newer partition.
        await store_delivered(bench, at=NOW + DAY)
        return count

    working = asyncio.create_task(work())
    deleted = 0
    while not working.done():
        deleted += (await run_retention(bench, NOW + KEEP_MS + DAY + 60_000))["events"]
    deleted += (await run_retention(bench, NOW + KEEP_MS + DAY + 60_000))["events"]
    assert (await working, deleted) == (50, 100)
    assert [seq for seq in await rows(bench, attempts.c.event_seq) if seq < NUMBERS] == []


async def test_the_second_concurrent_drop_does_nothing(bench: Bench) -> None:
    await bench.append(bench.event(due(2)))
    await store_delivered(bench)
    await start_partition(bench, NOW + DAY)
    await store_delivered(bench, at=NOW + DAY)
    partitions, partition = await find_expired_partition(bench)
    await partitions.delete_ended_deliveries(partition, after=None)
    with capture_logs() as lines:
        assert [await partitions.drop(partition) for _ in range(2)] == [1, 0]
    [dropped] = [line for line in lines if line["event"] == "partition dropped"]
    assert (dropped["events"], dropped["duration_ms"] > 0) == (1, True)
    assert await rows(bench, events.c.seq) == [1, NUMBERS]


async def partition_with_remainder(bench: Bench) -> tuple[PostgresPartitions, Partition]:
    """Drop a partition, but keep one event as the remainder. Return another partition with one event to keep."""
    for day in range(2):
        await bench.append(bench.event(due(2), created_at=NOW + day * DAY))
        await store_delivered(bench, at=NOW + day * DAY)
        await start_partition(bench, NOW + (day + 1) * DAY)
    await store_delivered(bench, at=NOW + 2 * DAY)
    await count_all(bench)
    partitions = bench.database.partitions
    assert isinstance(partitions, PostgresPartitions)
    earlier, partition = await partitions.list_droppable(before=NOW + 3 * DAY)
    for each in (earlier, partition):
        await partitions.delete_ended_deliveries(each, after=None)
    assert await partitions.drop(earlier) == 1
    return partitions, partition


def run_before(
    partitions: PostgresPartitions, name: str, callback: Callable[[], Awaitable[None]], patch: pytest.MonkeyPatch
) -> None:
    """Run a callback directly before the next call of a method."""
    method = getattr(partitions, name)

    async def late(body: Any) -> Any:
        patch.setattr(partitions, name, method)
        await callback()
        return await method(body)

    patch.setattr(partitions, name, late)


async def test_a_partition_dropped_before_the_copy_is_skipped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process merged the partition into the remainder, so a partition of this name no longer exists."""
    partitions, partition = await partition_with_remainder(bench)

    async def drop_elsewhere() -> None:
        assert await partitions.drop(partition) == 1

    run_before(partitions, "_transact", drop_elsewhere, monkeypatch)
    assert await partitions.drop(partition) == 0
    assert await rows(bench, events.c.seq) == [1, NUMBERS, 2 * NUMBERS]


async def test_a_partition_that_another_process_is_copying_stays(bench: Bench, other_connection: Any) -> None:
    partitions, partition = await partition_with_remainder(bench)
    async with other_connection.transaction():
        await other_connection.execute(f"SELECT pg_advisory_xact_lock({ASIDE_LOCK})")
        assert await partitions.drop(partition) == 0
    assert await partitions.drop(partition) == 1


async def test_a_partition_with_another_copy_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the drop, another process replaces the copy of the needed events with a copy that has fewer rows."""
    partitions, partition = await partition_with_remainder(bench)

    async def copy_less_elsewhere() -> None:
        assert await partitions._transact(lambda pair: _copy_aside(pair.raw, partition, None, [NUMBERS])) is not None

    run_before(partitions, "_write", copy_less_elsewhere, monkeypatch)
    assert await partitions.drop(partition) == 0
    assert await partitions.drop(partition) == 1
    assert await rows(bench, events.c.seq) == [1, NUMBERS, 2 * NUMBERS]


async def test_an_interrupted_drop_leaves_no_copy(bench: Bench, other_connection: Any) -> None:
    """An erasure would not find the content in a copy."""
    partitions, partition = await partition_with_remainder(bench)
    copy_exists = "SELECT to_regclass('events_aside') IS NOT NULL OR to_regclass('attempts_aside') IS NOT NULL"
    async with other_connection.transaction():
        await other_connection.execute("LOCK TABLE events IN ROW EXCLUSIVE MODE")
        with pytest.raises(Unavailable):
            await partitions.drop(partition)
        assert not await other_connection.fetchval(copy_exists)
    # The process was killed between the copy and the drop. Before the next drop, the last delivery ended.
    assert await partitions._transact(lambda pair: _copy_aside(pair.raw, partition, None, [NUMBERS])) is not None
    assert await other_connection.fetchval(copy_exists)
    await bench.database.write(lambda c: c.execute(sa.delete(deliveries).where(deliveries.c.event_seq == NUMBERS)))
    assert await partitions.drop(partition) == 2
    assert not await other_connection.fetchval(copy_exists)


async def test_an_erasure_during_a_drop_takes_effect(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    partitions, partition = await partition_with_remainder(bench)

    async def erase() -> None:
        erased = sa.update(events).where(events.c.seq.in_([1, NUMBERS])).values(erased_at=NOW, body=b"")
        await bench.database.write(lambda c: c.execute(erased).rowcount)

    run_before(partitions, "_write", erase, monkeypatch)
    assert await partitions.drop(partition) == 0
    assert await partitions.drop(partition) == 1
    kept = sa.select(events.c.seq, events.c.body).order_by(events.c.seq)
    assert [tuple(row) for row in await bench.database.read(lambda c: c.execute(kept).all())][:2] == [
        (1, b""),
        (NUMBERS, b""),
    ]


async def test_a_partition_whose_remainder_was_dropped_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    partitions, partition = await partition_with_remainder(bench)

    async def drop_remainder_elsewhere() -> None:
        for column in (attempts.c.event_seq, deliveries.c.event_seq, events.c.seq):
            deleted = sa.delete(column.table).where(column < partition.first_seq)
            await bench.database.write(lambda c: c.execute(deleted).rowcount)  # noqa: B023 - run before the next turn
        await partitions.drop_empty()

    run_before(partitions, "_write", drop_remainder_elsewhere, monkeypatch)
    assert await partitions.drop(partition) == 0
    assert await partitions.drop(partition) == 1
    assert await rows(bench, events.c.seq) == [NUMBERS, 2 * NUMBERS]
