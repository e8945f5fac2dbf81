"""The statistics updater counts new rows every second, less often under load, and resumes after database errors."""

import asyncio
from typing import Any

import pytest
from tests.engines import Place

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.operations.statistics import Statistics as Counted
from uplift_server.core.operations.statistics import total
from uplift_server.delivery.maintenance import statistics as loop
from uplift_server.delivery.maintenance.statistics import BUSY_TURNS, UNAVAILABLE_WAIT_MS, StatisticsUpdater
from uplift_server.delivery.shards import LocalShards
from uplift_server.store import statistics
from uplift_server.store.errors import Unavailable
from uplift_server.store.statistics import ALL_ACCOUNTS, Scope

from .world import HOUR, SECOND, START, World, respond


async def read_statistics(world: World, scope: Scope = ALL_ACCOUNTS) -> Counted:
    """Return the statistics of all hours."""
    found = await world.database.read(lambda c: statistics.by_bucket(c, [scope], since=0))
    return total(each for _, each in found[scope])


def statuses(counted: Counted) -> dict[Status, int]:
    """Return the number of deliveries by status, from statistics."""
    return {status: count for status in Status if (count := getattr(counted, status.text))}


async def test_new_rows_are_counted_a_second_later(place: Place) -> None:
    async with World(place, delays_ms=[5 * SECOND]) as world:
        live = await world.endpoint("one.test")
        await world.endpoint("two.test", lambda _: respond(503))
        await world.accept(3)
        assert (await read_statistics(world)).deliveries == 0
        await world.run_for(SECOND)
        first = await read_statistics(world)
        assert (first.deliveries, statuses(first)) == (6, {Status.PENDING: 3, Status.DELIVERED: 3})
        assert (first.attempts, first.outcomes) == (6, {Outcome.DELIVERED: 3, Outcome.SERVER_ERROR: 3})
        await world.run_for(10 * SECOND)
        assert (
            statuses(await read_statistics(world)) == {Status.FAILED: 3, Status.DELIVERED: 3} == await world.statuses()
        )
        one = Scope(world.account.seq, live.seq)
        assert (await read_statistics(world, one)).deliveries == 3
        assert (await read_statistics(world, Scope(world.account.seq, 0))).attempts == 9


async def test_rows_are_grouped_by_hour(place: Place) -> None:
    """Deliveries count in the hour of their event, attempts in their own hour."""
    async with World(place, delays_ms=[HOUR + HOUR // 2], scan_every_ms=HOUR // 4) as world:
        script = iter([respond(503), respond(200)])
        await world.endpoint("one.test", lambda _: next(script))
        await world.accept(1)
        await world.run_for(2 * HOUR)
        found = (await world.database.read(lambda c: statistics.by_bucket(c, [ALL_ACCOUNTS], since=0)))[ALL_ACCOUNTS]
        began = START - START % HOUR
        by_hour = {(at - began) // HOUR: (each.deliveries, each.delivered, each.attempts) for at, each in found}
        assert by_hour == {0: (1, 1, 1), 1: (0, 0, 1)}
        since = await world.database.read(lambda c: statistics.by_bucket(c, [ALL_ACCOUNTS], since=began + HOUR))
        assert [at for at, _ in since[ALL_ACCOUNTS]] == [began + HOUR]


@pytest.mark.parametrize("way", ["restart", "kill"])
async def test_a_restart_counts_each_row_once(place: Place, way: str) -> None:
    async with World(place, delays_ms=[5 * SECOND]) as world:
        await world.endpoint("one.test")
        await world.endpoint("two.test", lambda _: respond(503))
        for turn in range(1, 4):
            await world.accept(2)
            await world.run_for(SECOND * (turn % 2))
            await getattr(world, way)()
        await world.run_for(30 * SECOND)
        counted = await read_statistics(world)
        assert (counted.deliveries, statuses(counted)) == (12, await world.statuses())


async def test_paused_cancelled_and_test_deliveries_are_counted_by_status(place: Place) -> None:
    async with World(place, delays_ms=[5 * SECOND]) as world:
        live = await world.endpoint("one.test", lambda _: respond(503))
        await world.accept(4)
        await world.run_for(2 * SECOND)
        await world.pause(live.seq)
        await world.accept(2)
        await world.run_for(10 * SECOND)
        assert statuses(await read_statistics(world)) == {Status.HELD: 6} == await world.statuses()


async def test_a_busy_process_counts_less_often(place: Place) -> None:
    async with World(place) as world:
        await world.endpoint("one.test")
        await world.run_for(SECOND)
        world.clock.use(0.9)
        await world.accept(1)
        await world.run_for((BUSY_TURNS - 1) * SECOND)
        assert (await read_statistics(world)).deliveries == 0
        await world.run_for(SECOND)
        assert (await read_statistics(world)).deliveries == 1
        world.clock.use(0.1)
        await world.run_for(SECOND)
        await world.accept(1)
        await world.run_for(SECOND)
        assert (await read_statistics(world)).deliveries == 2


async def test_counting_waits_for_an_unavailable_database(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(place) as world:
        await world.endpoint("one.test")
        await world.accept(3)

        def unavailable(*_: object, **__: object) -> None:
            raise Unavailable("the disk is full")

        for verb in ("count", "save"):
            with monkeypatch.context() as failing:
                failing.setattr(loop, verb, unavailable)
                await world.run_for(SECOND)
            assert (await read_statistics(world)).deliveries == 0
            await world.run_for(UNAVAILABLE_WAIT_MS)
        await world.run_for(2 * SECOND)
        assert (await read_statistics(world)).deliveries == 3


async def test_counting_works_in_batches_and_stops_between_two(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "BATCH_ROWS", 2)
    async with World(place, scan_every_ms=24 * HOUR) as world:
        await world.endpoint("one.test")
        await world.accept(5)
        stopping = asyncio.Event()
        counter = StatisticsUpdater(world.database, LocalShards(), world.clock, every_ms=SECOND)
        task = asyncio.create_task(counter.count_all(stopping))
        world.callers.add(task)
        await world.settle()
        # Attempts are counted before deliveries.
        assert ((await read_statistics(world)).attempts, (await read_statistics(world)).deliveries) == (2, 0)
        stopping.set()
        await world.settle()
        assert task.done()
        await world.stepping(counter.count_all(asyncio.Event()))
        assert ((await read_statistics(world)).attempts, (await read_statistics(world)).deliveries) == (5, 5)


async def test_nothing_is_written_without_new_rows(place: Place) -> None:
    async with World(place, scan_every_ms=24 * HOUR) as world:
        await world.endpoint("one.test")
        await world.accept(1)
        writes: list[Any] = []
        database: Any = world.database
        counter = StatisticsUpdater(database, LocalShards(), world.clock, every_ms=SECOND)
        await counter.count_all(asyncio.Event())
        write = database.write
        database.write = lambda body: writes.append(body) or write(body)
        await counter.count_all(asyncio.Event())
        assert writes == []
