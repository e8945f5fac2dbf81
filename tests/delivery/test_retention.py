"""Retention deletes expired rows once a minute, in batches with pauses, until the process stops."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from tests.engines import Place

from uplift_server.core.lifecycle import Status
from uplift_server.core.people.audit import SYSTEM, AuditEntry
from uplift_server.delivery.maintenance.retention import BATCH_PAUSE_MS, RECHECK_EVERY_MS, ROUND_EVERY_MS, Retention
from uplift_server.delivery.shards import LocalShards
from uplift_server.observe.counters import EngineCounters
from uplift_server.service import errors
from uplift_server.store import accounts, audit, retention_clock, schema, schema_traces, trace_parents
from uplift_server.store.cleanup import RETENTION_RULES, RetentionRule, delete_expired
from uplift_server.store.errors import Unavailable
from uplift_server.store.schema import attempts, audit_log, deliveries, events, idempotency_keys

from .owner import Owner
from .world import DAY, HOUR, SECOND, START, World, respond

KEEP_MS = 24 * HOUR
(BATCH_ROWS,) = (kept.batch_rows for kept in RETENTION_RULES if kept.table is events)


async def count(world: World, table: sa.Table) -> int:
    """Return the number of rows of a table."""
    found = await world.database.read(lambda c: c.scalar(sa.select(sa.func.count()).select_from(table)))
    assert isinstance(found, int)
    return found


async def seqs(world: World, table: sa.Table) -> list[int]:
    """Return the sequence numbers of a table."""
    return await world.database.read(lambda c: sorted(c.scalars(sa.select(table.c.seq))))


async def count_all(world: World) -> None:
    """Update the statistics, because retention deletes only events that they have counted."""
    await world.stepping(world.parts.statistics.count_all(asyncio.Event()))


async def prune(world: World, retention: Retention | None = None) -> dict[str, int]:
    """Run a retention pass. Return the number of deleted rows by table."""
    await count_all(world)
    used = retention or Retention(
        world.database, LocalShards(), world.clock, EngineCounters(), retention_ms=KEEP_MS, every_ms=ROUND_EVERY_MS
    )
    task = asyncio.create_task(used.prune_once(asyncio.Event()))
    # Add the task to the loops, so that the clock stands still until the task waits, too.
    world.engine.tasks.append(task)  # type: ignore[arg-type]
    with contextlib.suppress(Unavailable):
        await world.stepping(task)
    world.engine.tasks.remove(task)  # type: ignore[arg-type]
    return +task.result()


class Counting:
    """A database that counts ordinary reads and writes."""

    def __init__(self, world: World) -> None:
        self._database = world.database
        self.reads = self.writes = 0

    async def read(self, body: Any) -> Any:
        self.reads += 1
        return await self._database.read(body)

    async def write(self, body: Any) -> Any:
        self.writes += 1
        return await self._database.write(body)


async def start_retention(world: World, *, retention_ms: int = KEEP_MS) -> tuple[asyncio.Task[None], asyncio.Event]:
    """Run retention. Return the task and the event that stops it."""
    stopping = asyncio.Event()
    task = asyncio.create_task(
        Retention(
            world.database,
            LocalShards(),
            world.clock,
            EngineCounters(),
            retention_ms=retention_ms,
            every_ms=ROUND_EVERY_MS,
        ).run(stopping)
    )
    world.engine.tasks.append(task)
    await world.settle()
    return task, stopping


async def test_expired_rows_are_deleted_in_the_next_round(place: Place) -> None:
    async with World(place, scan_every_ms=2 * HOUR) as world:
        await world.endpoint("one.test")
        traced = {stored.seq: "00-…" for stored in await world.accept(3)}
        await world.database.write(lambda c: trace_parents.put(c, traced))
        task, stopping = await start_retention(world, retention_ms=2 * HOUR)
        await world.run_for(2 * HOUR)
        assert await count(world, events) == 3
        await world.run_for(2 * ROUND_EVERY_MS)
        # The newest row of each table stays.
        kept = (events, deliveries, attempts, schema_traces.trace_parents)
        assert [await count(world, table) for table in kept] == [1, 1, 1, 1]
        stopping.set()
        await task


async def test_a_forward_clock_jump_deletes_nothing_until_confirmed(place: Place) -> None:
    async with World(place, scan_every_ms=24 * HOUR) as world:
        await world.endpoint("one.test")
        await world.accept(3)
        first, stopping = await start_retention(world)
        await world.run_for(2 * ROUND_EVERY_MS)
        stopping.set()
        await world.run_for(2 * ROUND_EVERY_MS)
        await first
        world.clock.now += KEEP_MS + HOUR

        # The machine has restarted with a wrong clock.
        second, stopping = await start_retention(world)
        await world.run_for(3 * ROUND_EVERY_MS)
        assert await count(world, events) == 3

        await world.database.write(lambda c: retention_clock.accept(c, now=world.clock.now))
        await world.run_for(3 * ROUND_EVERY_MS)
        assert await count(world, events) == 1
        stopping.set()
        await second


async def test_rows_that_are_still_needed_stay(place: Place) -> None:
    async with World(place, delays_ms=[10 * KEEP_MS], scan_every_ms=24 * HOUR) as world:
        other = await world.new_account()
        await world.endpoint("one.test", lambda _: None)
        await world.accept(1)
        await world.endpoint("two.test", account=other)
        await world.accept(2, account=other)
        await world.run_for(KEEP_MS + ROUND_EVERY_MS)
        retention = Retention(
            world.database, LocalShards(), world.clock, EngineCounters(), retention_ms=KEEP_MS, every_ms=ROUND_EVERY_MS
        )
        pending = (await world.statuses()).get(Status.PENDING, 0)
        await prune(world, retention)
        assert pending == (await world.statuses()).get(Status.PENDING, 0) == 1
        assert await count(world, events) == 2


async def test_expired_rows_are_deleted_in_batches_with_pauses(place: Place) -> None:
    async with World(place, scan_every_ms=24 * HOUR) as world:
        await world.accept(2 * BATCH_ROWS + 2)
        world.clock.now += KEEP_MS + 1
        began = world.clock.now
        assert await prune(world) == {"events": 2 * BATCH_ROWS + 1}
        assert world.clock.now - began == 2 * BATCH_PAUSE_MS
        assert await count(world, events) == 1


async def test_idempotency_keys_expire_without_an_expired_event(place: Place) -> None:
    async with World(place, scan_every_ms=24 * HOUR) as world:
        await world.accept(1, idempotency_key="a")
        world.clock.now += KEEP_MS + 1
        await prune(world)
        assert (await count(world, events), await count(world, idempotency_keys)) == (1, 0)


def interrupt_batch(patch: pytest.MonkeyPatch, table: str) -> None:
    """Make the database unavailable for every batch of a table."""

    def interrupted(connection: sa.Connection, kept: RetentionRule, keys: Any, **options: Any) -> int:
        if kept.name == table:
            raise Unavailable("cut off")
        return delete_expired(connection, kept, keys, **options)

    patch.setattr("uplift_server.delivery.maintenance.retention.delete_expired", interrupted)


@pytest.mark.parametrize("table", ["idempotency_keys", "events"])
async def test_a_repeated_request_is_accepted_after_an_interrupted_round(
    place: Place, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """An idempotency key must not outlive its event, because a repeated request could then get no response."""
    async with World(place, scan_every_ms=24 * HOUR) as world:
        await world.accept(1, idempotency_key="a")
        await world.accept(1)
        world.clock.now += KEEP_MS + 1
        interrupt_batch(monkeypatch, table)
        with pytest.raises(Unavailable):
            await prune(world)

        # The event is recognized as a repeat until its key is deleted. After that, it is a new event.
        (again,) = await world.accept(1, idempotency_key="a")
        assert again.duplicate is (table == "idempotency_keys")
        assert await count(world, idempotency_keys) == 1


@pytest.mark.parametrize("table", ["idempotency_keys", "events", "audit_log", "endpoints"])
async def test_retention_continues_after_a_kill_between_two_batches(
    place: Place, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """All rows of a deleted account are deleted, even after a kill between two batches of any table."""
    async with World(place, scan_every_ms=24 * HOUR) as world:
        other = await world.new_account()
        deleted = await world.endpoint("gone.test", account=other)
        await world.endpoint("one.test")
        newest = await world.new_account()
        await world.accept(BATCH_ROWS + 2, account=other, idempotency_key=None)
        await world.accept(1, account=other, idempotency_key="a")
        entry = AuditEntry(other.seq, world.clock.now, SYSTEM, "account.deleted", "x", {})
        await world.database.write(lambda c: (audit.add(c, entry), audit.add(c, entry)))
        await world.database.write(lambda c: accounts.delete(c, other.id, now=world.clock.now))
        world.cache.drop_endpoint(deleted.seq)
        world.cache.drop_account(other.seq)
        world.clock.now += KEEP_MS + 1
        await world.accept(1)

        with monkeypatch.context() as patch:
            interrupt_batch(patch, table)
            with pytest.raises(Unavailable):
                await prune(world)
        await world.kill()
        await world.accept(1)
        await prune(world)

        # The newest audit log entry stays, and so does its account.
        assert [await count(world, t) for t in (events, deliveries, idempotency_keys, audit_log)] == [2, 2, 0, 1]
        assert await seqs(world, schema.endpoints) == [deleted.seq + 1]
        assert await seqs(world, schema.accounts) == [world.account.seq, other.seq, newest.seq]
        await world.database.write(lambda c: audit.add(c, replace(entry, at=world.clock.now, account_seq=None)))
        await prune(world)
        assert await seqs(world, schema.accounts) == [world.account.seq, newest.seq]


async def test_deliveries_during_retention_are_neither_lost_nor_late(place: Place) -> None:
    """Events are accepted, and deliveries succeed or fail, while expired events are deleted."""
    async with World(place, delays_ms=(SECOND,), scan_every_ms=SECOND) as world:
        await world.endpoint("one.test")
        await world.endpoint("fails.test", lambda _: respond(500))
        await world.accept(4 * BATCH_ROWS)
        await world.run_for(10 * SECOND)
        world.clock.now += KEEP_MS
        task, stopping = await start_retention(world)
        accepted = []
        for _ in range(30):
            began = world.clock.now
            accepted += await world.accept(5)
            assert world.sender.times("one.test")[-5:] == [began] * 5
            await world.run_for(ROUND_EVERY_MS // 20)
        await world.run_for(ROUND_EVERY_MS)
        assert await seqs(world, events) == [each.seq for each in accepted]
        assert await world.statuses() == {Status.DELIVERED: 150, Status.FAILED: 150}
        stopping.set()
        await world.run_for(ROUND_EVERY_MS)
        await task


async def test_needed_rows_are_skipped_for_an_hour(place: Place) -> None:
    """Millions of expired rows may still be needed, and reading them in every pass would be slow."""
    async with World(place, scan_every_ms=24 * HOUR) as world:
        await world.pause((await world.endpoint("one.test")).seq)
        await world.accept(2 * BATCH_ROWS + 1)
        world.clock.now += KEEP_MS + 1
        database: Any = Counting(world)
        retention = Retention(
            database, LocalShards(), world.clock, EngineCounters(), retention_ms=KEEP_MS, every_ms=ROUND_EVERY_MS
        )

        await prune(world, retention)
        assert (database.reads, database.writes) == (len(RETENTION_RULES) + 2, 0)
        await prune(world, retention)
        assert (database.reads, database.writes) == (2 * len(RETENTION_RULES) + 2, 0)
        await world.database.write(lambda c: c.execute(sa.update(deliveries).values(status=int(Status.CANCELLED))))
        # Stop 60 s before the end of the hour, because the pauses of a pass take time, too.
        world.clock.now += RECHECK_EVERY_MS - 60 * SECOND
        await prune(world, retention)
        assert await count(world, events) == 2 * BATCH_ROWS + 1
        world.clock.now += 60 * SECOND
        await prune(world, retention)
        assert await count(world, events) == 1


async def test_a_clock_set_back_does_not_delay_the_recheck(place: Place) -> None:
    async with World(place, scan_every_ms=24 * HOUR) as world:
        await world.pause((await world.endpoint("one.test")).seq)
        await world.accept(2)
        world.clock.now += 9 * KEEP_MS
        retention = Retention(
            world.database, LocalShards(), world.clock, EngineCounters(), retention_ms=KEEP_MS, every_ms=ROUND_EVERY_MS
        )
        await prune(world, retention)
        await world.database.write(lambda c: c.execute(sa.update(deliveries).values(status=int(Status.CANCELLED))))
        world.clock.now -= 5 * KEEP_MS
        await prune(world, retention)
        assert await count(world, events) == 1


async def test_nothing_is_written_without_expired_rows(place: Place) -> None:
    async with World(place, scan_every_ms=24 * HOUR) as world:
        await world.endpoint("one.test")
        await world.accept(3)
        database: Any = Counting(world)
        await prune(
            world,
            Retention(
                database, LocalShards(), world.clock, EngineCounters(), retention_ms=KEEP_MS, every_ms=ROUND_EVERY_MS
            ),
        )
        assert (database.reads, database.writes) == (len(RETENTION_RULES), 0)


async def test_a_retention_of_zero_keeps_everything(place: Place) -> None:
    async with World(place, scan_every_ms=24 * HOUR) as world:
        await world.endpoint("one.test")
        await world.accept(3)
        await count_all(world)
        before = [await count(world, each.table) for each in RETENTION_RULES]
        assert sum(before) > 3
        world.clock.now += 1000 * DAY
        await world.run_for(3 * ROUND_EVERY_MS)
        assert [await count(world, each.table) for each in RETENTION_RULES] == before


async def test_retention_retries_after_the_database_was_unavailable(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World(place, scan_every_ms=24 * HOUR) as world:
        await world.accept(2)
        await count_all(world)
        task, stopping = await start_retention(world, retention_ms=1000)

        async def unavailable(_body: object) -> None:
            raise Unavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(world.database, "write", unavailable)
            await world.run_for(ROUND_EVERY_MS)
        assert not task.done()
        assert await count(world, events) == 2
        await world.run_for(ROUND_EVERY_MS)
        assert await count(world, events) == 1
        stopping.set()
        await task


async def test_retention_stops_within_a_batch(place: Place) -> None:
    async with World(place, scan_every_ms=24 * HOUR) as world:
        await world.accept(BATCH_ROWS + 2)
        world.clock.now += KEEP_MS + 1
        task, stopping = await start_retention(world)
        while await count(world, events) > 2:
            world.clock.fire()
            await world.settle()
        stopping.set()
        await task
        assert await count(world, events) == 2
        assert world.clock.now < START + KEEP_MS + 2 * ROUND_EVERY_MS


async def test_uncounted_rows_stay(place: Place) -> None:
    async with World(place, scan_every_ms=24 * HOUR) as world:
        await world.endpoint("one.test")
        await world.accept(3)
        world.clock.now += KEEP_MS + 1
        retention = Retention(
            world.database, LocalShards(), world.clock, EngineCounters(), retention_ms=KEEP_MS, every_ms=ROUND_EVERY_MS
        )
        assert +await retention.prune_once(asyncio.Event()) == {}
        await count_all(world)
        world.clock.now += RECHECK_EVERY_MS
        # For the expired hour, `rollups` has one row for the endpoint, and two rows each for the account and for all
        # accounts: in total and by event type.
        assert +await retention.prune_once(asyncio.Event()) == {"events": 2, "rollups": 5}


class Removing:
    """A database whose deliveries are deleted just before a write."""

    removes = False

    async def write(self, body: Callable[[sa.Connection], object]) -> object:
        if self.removes:
            self.removes = False
            await super().write(lambda c: c.execute(sa.delete(deliveries)))  # type: ignore[misc]
        return await super().write(body)  # type: ignore[misc]


@pytest.mark.parametrize("change", [Owner.resend, Owner.cancel])
async def test_a_delivery_that_retention_just_deleted_is_not_found(
    place: Place, change: Callable[[Owner, bytes, int], Awaitable[object]]
) -> None:
    async with World(place, database=Removing, delays_ms=()) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        (stored,) = await world.accept()
        world.database.removes = True
        with pytest.raises(errors.NotFound):
            await change(Owner(world), stored.id, endpoint.seq)
        assert await count(world, audit_log) == 0
