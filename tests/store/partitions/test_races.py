"""Partitions that start and are dropped under traffic, and beside another process that does the same."""

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

from .partition_days import DAY, KEEP_MS, begin, count_all, delivered, first_ended, retained, rows


async def test_a_partition_starts_under_traffic(bench: Bench) -> None:
    """Every event finds its partition at any time, and numbers increase."""
    await delivered(bench)
    stopping = asyncio.Event()

    async def emit() -> list[int]:
        seqs = []
        while not stopping.is_set():
            [appended] = await bench.append(bench.event(due(1)))
            seqs.append(appended.seq)
        return seqs

    emitting = [asyncio.create_task(emit()) for _ in range(8)]
    for day in range(1, 6):
        await asyncio.sleep(0.05)
        assert await begin(bench, NOW + day * DAY)
    stopping.set()
    seqs = [await each for each in emitting]
    assert all(own == sorted(own) for own in seqs)
    assert {seq // NUMBERS for own in seqs for seq in own} >= {0, 1, 2, 3, 4}
    assert await rows(bench, events.c.seq) == sorted([1, *(seq for own in seqs for seq in own)])


async def test_a_locked_table_does_not_block_other_statements(bench: Bench, stranger: Any) -> None:
    """The operation that would wait for the lock gives up, and succeeds later."""
    await delivered(bench)
    async with stranger.transaction():
        await stranger.execute("LOCK TABLE events IN ROW EXCLUSIVE MODE")
        for _ in range(2):
            with pytest.raises(Unavailable):
                await begin(bench, NOW + DAY)
        assert await delivered(bench) == [2]
    assert await begin(bench, NOW + DAY)
    [seq] = await delivered(bench, at=NOW + DAY)
    async with stranger.transaction():
        await stranger.fetch("SELECT FROM events LIMIT 1")
        assert not (await retained(bench, NOW + 2 * DAY + KEEP_MS))["events"]
        assert await rows(bench, events.c.seq) == [1, 2, seq]
    assert (await retained(bench, NOW + 2 * DAY + KEEP_MS))["events"] == 2
    assert await rows(bench, events.c.seq) == [seq]


async def test_concurrent_events_with_one_chosen_id_are_stored_once(bench: Bench) -> None:
    for day in range(1, 4):
        await delivered(bench)
        chosen = uuid7(NOW, bytes([day]) * 10)
        event = bench.event(due(1), chosen_id=chosen)
        *results, begun = await asyncio.gather(
            *(bench.database.append([[event]]) for _ in range(20)), begin(bench, NOW + day * DAY)
        )
        assert begun
        assert len({appended.seq for [[appended]] in results}) == 1  # type: ignore[misc]


async def test_a_delivery_leased_during_a_drop_keeps_its_event(bench: Bench) -> None:
    """Concurrently with other operations, until retention has deleted everything possible."""
    await delivered(bench, 50)
    await bench.append(*(bench.event(due(2)) for _ in range(50)))
    await begin(bench, NOW + DAY)
    await delivered(bench, at=NOW + DAY)

    async def work() -> int:
        count = 0
        while count < 50:
            leased = await bench.lease(2, limit=1)
            assert all(each.body for each in leased)
            assert not await bench.database.settle([settled(each, Status.DELIVERED) for each in leased])
            count += len(leased)
        # The last counted attempt keeps its event.
        await delivered(bench, at=NOW + DAY)
        return count

    working = asyncio.create_task(work())
    gone = 0
    while not working.done():
        gone += (await retained(bench, NOW + KEEP_MS + DAY + 60_000))["events"]
    gone += (await retained(bench, NOW + KEEP_MS + DAY + 60_000))["events"]
    assert (await working, gone) == (50, 100)
    assert [seq for seq in await rows(bench, attempts.c.event_seq) if seq < NUMBERS] == []


async def test_the_second_concurrent_drop_does_nothing(bench: Bench) -> None:
    await bench.append(bench.event(due(2)))
    await delivered(bench)
    await begin(bench, NOW + DAY)
    await delivered(bench, at=NOW + DAY)
    own, partition = await first_ended(bench)
    await own.delete_ended_deliveries(partition, after=None)
    with capture_logs() as lines:
        assert [await own.drop(partition) for _ in range(2)] == [1, 0]
    [told] = [line for line in lines if line["event"] == "partition dropped"]
    assert (told["events"], told["duration_ms"] > 0) == (1, True)
    assert await rows(bench, events.c.seq) == [1, NUMBERS]


async def one_beside_a_rest(bench: Bench) -> tuple[PostgresPartitions, Partition]:
    """Return a partition in which all but one event can be deleted. An earlier one has the same remainder."""
    for day in range(2):
        await bench.append(bench.event(due(2), created_at=NOW + day * DAY))
        await delivered(bench, at=NOW + day * DAY)
        await begin(bench, NOW + (day + 1) * DAY)
    await delivered(bench, at=NOW + 2 * DAY)
    await count_all(bench)
    own = bench.database.partitions
    assert isinstance(own, PostgresPartitions)
    earlier, partition = await own.list_droppable(before=NOW + 3 * DAY)
    for each in (earlier, partition):
        await own.delete_ended_deliveries(each, after=None)
    assert await own.drop(earlier) == 1
    return own, partition


def before(own: PostgresPartitions, name: str, act: Callable[[], Awaitable[None]], patch: pytest.MonkeyPatch) -> None:
    """Run a callback once, directly before a method."""
    method = getattr(own, name)

    async def late(body: Any) -> Any:
        patch.setattr(own, name, method)
        await act()
        return await method(body)

    patch.setattr(own, name, late)


async def test_a_partition_dropped_before_the_copy_is_skipped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was merged into the remainder, so its name no longer exists."""
    own, partition = await one_beside_a_rest(bench)

    async def another_drops_it() -> None:
        assert await own.drop(partition) == 1

    before(own, "_transact", another_drops_it, monkeypatch)
    assert await own.drop(partition) == 0
    assert await rows(bench, events.c.seq) == [1, NUMBERS, 2 * NUMBERS]


async def test_a_partition_that_another_process_is_copying_stays(bench: Bench, stranger: Any) -> None:
    own, partition = await one_beside_a_rest(bench)
    async with stranger.transaction():
        await stranger.execute(f"SELECT pg_advisory_xact_lock({ASIDE_LOCK})")
        assert await own.drop(partition) == 0
    assert await own.drop(partition) == 1


async def test_a_partition_with_another_copy_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy lacks the remainder of the earlier partition."""
    own, partition = await one_beside_a_rest(bench)

    async def another_puts_less_aside() -> None:
        assert await own._transact(lambda pair: _copy_aside(pair.raw, partition, None, [NUMBERS])) is not None

    before(own, "_write", another_puts_less_aside, monkeypatch)
    assert await own.drop(partition) == 0
    assert await own.drop(partition) == 1
    assert await rows(bench, events.c.seq) == [1, NUMBERS, 2 * NUMBERS]


async def test_a_partition_whose_remainder_was_dropped_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    own, partition = await one_beside_a_rest(bench)

    async def another_drops_the_rest() -> None:
        for column in (attempts.c.event_seq, deliveries.c.event_seq, events.c.seq):
            gone = sa.delete(column.table).where(column < partition.first_seq)
            await bench.database.write(lambda c: c.execute(gone).rowcount)  # noqa: B023 - run before the next turn
        await own.drop_empty()

    before(own, "_write", another_drops_the_rest, monkeypatch)
    assert await own.drop(partition) == 0
    assert await own.drop(partition) == 1
    assert await rows(bench, events.c.seq) == [NUMBERS, 2 * NUMBERS]
