"""Retention: once a minute, bite by bite, with pauses, until told to stop."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

from uplift_server.core.deliveries import Status
from uplift_server.delivery.retention import BITE, BITE_PAUSE_MS, ROUND_EVERY_MS, Retention
from uplift_server.store.errors import Unavailable
from uplift_server.store.schema import attempts, deliveries, events, idempotency_keys

from .world import HOUR, START, World

KEEP_MS = 24 * HOUR


async def count(world: World, table: sa.Table) -> int:
    """How many rows a table has."""
    found = await world.database.read(lambda c: c.scalar(sa.select(sa.func.count()).select_from(table)))
    assert isinstance(found, int)
    return found


async def running(world: World, *, retention_ms: int = KEEP_MS) -> tuple[asyncio.Task[None], asyncio.Event]:
    """Retention at work, and how to stop it."""
    stopping = asyncio.Event()
    task = asyncio.create_task(Retention(world.database, world.clock, retention_ms=retention_ms).run(stopping))
    await world.settle()
    return task, stopping


async def test_what_is_past_its_time_goes_with_the_first_round_after(tmp_path: Path) -> None:
    async with World(tmp_path, scan_every_ms=24 * HOUR) as world:
        await world.endpoint("one.test")
        await world.accept(3)
        task, stopping = await running(world)
        await world.run_for(KEEP_MS)
        assert await count(world, events) == 3
        await world.run_for(2 * ROUND_EVERY_MS)
        # The newest stays.
        assert [await count(world, table) for table in (events, deliveries, attempts)] == [1, 1, 1]
        stopping.set()
        await task


async def test_what_is_still_owed_stays(tmp_path: Path) -> None:
    async with World(tmp_path, delays_ms=[10 * KEEP_MS], scan_every_ms=24 * HOUR) as world:
        other = await world.new_account()
        await world.endpoint("one.test", lambda _: None)
        await world.accept(1)
        await world.endpoint("two.test", account=other)
        await world.accept(2, account=other)
        await world.run_for(KEEP_MS + ROUND_EVERY_MS)
        retention = Retention(world.database, world.clock, retention_ms=KEEP_MS)
        pending = (await world.statuses()).get(Status.PENDING, 0)
        await world.stepping(retention.prune_once(asyncio.Event()))
        assert pending == (await world.statuses()).get(Status.PENDING, 0) == 1
        assert await count(world, events) == 2


async def test_it_goes_on_bite_by_bite_with_pauses_until_nothing_old_is_left(tmp_path: Path) -> None:
    async with World(tmp_path, scan_every_ms=24 * HOUR) as world:
        await world.accept(2 * BITE + 2)
        world.clock.now += KEEP_MS + 1
        retention = Retention(world.database, world.clock, retention_ms=KEEP_MS)
        began = world.clock.now
        gone: list[int] = []

        async def prune() -> None:
            gone.append(await retention.prune_once(asyncio.Event()))

        await world.stepping(prune())
        assert gone == [2 * BITE + 1]
        assert world.clock.now - began == 2 * BITE_PAUSE_MS
        assert await count(world, events) == 1


async def test_keys_are_forgotten_also_where_no_event_goes(tmp_path: Path) -> None:
    async with World(tmp_path, scan_every_ms=24 * HOUR) as world:
        await world.accept(1, idempotency_key="a")
        world.clock.now += KEEP_MS + 1
        await world.stepping(Retention(world.database, world.clock, retention_ms=KEEP_MS).prune_once(asyncio.Event()))
        assert (await count(world, events), await count(world, idempotency_keys)) == (1, 0)


@pytest.mark.parametrize("verb", ["prune", "prune_keys"])
async def test_a_repeat_is_taken_wherever_a_round_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """No key outlives its event: the repeat could then neither be answered nor stored."""
    async with World(tmp_path, scan_every_ms=24 * HOUR) as world:
        await world.accept(1, idempotency_key="a")
        await world.accept(1)
        world.clock.now += KEEP_MS + 1

        def cut_off(*_args: object, **_kwargs: object) -> None:
            raise Unavailable("cut off")

        monkeypatch.setattr(f"uplift_server.delivery.retention.{verb}", cut_off)
        round_ = Retention(world.database, world.clock, retention_ms=KEEP_MS).prune_once(asyncio.Event())
        with pytest.raises(Unavailable):
            await world.stepping(round_)

        # Before the keys' turn the repeat is still known, after it it is a new event.
        (again,) = await world.accept(1, idempotency_key="a")
        assert again.duplicate is (verb == "prune_keys")
        assert await count(world, idempotency_keys) == 1


async def test_a_retention_of_nothing_keeps_everything(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        assert "retention" not in {task.get_name() for task in world.engine._tasks}


async def test_it_tries_again_after_the_database_was_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(tmp_path, scan_every_ms=24 * HOUR) as world:
        await world.accept(2)
        task, stopping = await running(world, retention_ms=1000)

        async def away(_body: object) -> None:
            raise Unavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(world.database, "write", away)
            await world.run_for(ROUND_EVERY_MS)
        assert not task.done()
        assert await count(world, events) == 2
        await world.run_for(ROUND_EVERY_MS)
        assert await count(world, events) == 1
        stopping.set()
        await task


async def test_it_stops_within_a_bite(tmp_path: Path) -> None:
    async with World(tmp_path, scan_every_ms=24 * HOUR) as world:
        await world.accept(BITE + 2)
        world.clock.now += KEEP_MS + 1
        task, stopping = await running(world)
        while await count(world, events) > 2:
            world.clock.fire()
            await world.settle()
        stopping.set()
        await task
        assert await count(world, events) == 2
        assert world.clock.now < START + KEEP_MS + 2 * ROUND_EVERY_MS
