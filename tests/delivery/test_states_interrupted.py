"""Endpoints are paused and enabled while deliveries change or the database is unavailable."""

import asyncio
from typing import Any

import pytest
from msgspec import structs
from tests.delivery.fleet import Fleet
from tests.engines import Place

from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.service.errors import Busy
from uplift_server.store import endpoint_backlog, endpoints
from uplift_server.store.contract import Transaction
from uplift_server.store.endpoint_backlog import DropResult
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import Released
from uplift_server.store.records import EndpointState, HeldAction

from .owner import Owner
from .test_engine import resend
from .test_states import events_sent, ids, pause_during_drop
from .world import HOUR, MINUTE, SECOND, START, World, respond


@pytest.mark.parametrize("way", ["kill", "restart"])
async def test_an_interrupted_hold_or_release_continues_after_a_restart(place: Place, way: str) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        stored = await world.accept(1000)
        world.sender.scripts["one.test"] = lambda _: respond(200)
        await world.pause(endpoint.seq)
        await world.settle()
        # The hold is incomplete: some deliveries are held, and others are still pending.
        assert {Status.HELD, Status.PENDING} == set(await world.statuses())
        before = len(world.sender.sent)
        await getattr(world, way)()
        await world.run_for(60 * SECOND)
        assert await world.statuses() == {Status.HELD: 1000}
        await world.enable(endpoint.seq)
        for _ in range(3):
            await world.run_for(3 * SECOND)
            await getattr(world, way)()
        await world.run_for(60 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 1000}
        assert events_sent(world, before) == ids(stored)


class CallsBack:
    """A database that calls `before` once after a lease or a release, before its caller continues."""

    before: Any = None

    async def lease_due(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        leased = await super().lease_due(*args, **kwargs)
        await self._interrupt(bool(leased))
        return leased

    async def release_held(self, requests: Any, *, now: int) -> list[Released]:  # type: ignore[override]
        released = await super().release_held(requests, now=now)
        await self._interrupt(True)
        return released

    async def _interrupt(self, should_call: bool) -> None:
        if should_call and self.before is not None:
            interrupt, self.before = self.before, None
            await interrupt()


async def test_deliveries_leased_during_a_pause_are_not_sent(place: Place) -> None:
    async with World(place, database=CallsBack) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        await world.accept(5)
        before = len(world.sender.sent)
        world.database.before = lambda: world.pause(endpoint.seq)  # type: ignore[attr-defined]
        await world.run_for(10 * MINUTE)
        assert len(world.sender.sent) == before
        assert await world.statuses() == {Status.HELD: 5}


@pytest.mark.parametrize("is_waited_for", [False, True])
async def test_deliveries_released_during_a_pause_are_held_again(place: Place, is_waited_for: bool) -> None:
    async with World(place, database=CallsBack) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        await world.accept(10)
        sent = []

        async def pause() -> None:
            await world.pause(endpoint.seq)
            if is_waited_for:
                await world.parts.changes.finish_holding(endpoint.seq, SECOND)
            sent.append(len(world.sender.sent))

        world.database.before = pause  # type: ignore[attr-defined]
        await world.enable(endpoint.seq)
        await world.run_for(10 * MINUTE)
        assert sent == [len(world.sender.sent)]
        held_and_sent = {Status.HELD: 10 - sent[0], Status.DELIVERED: sent[0]}
        assert await world.statuses() == {status: count for status, count in held_and_sent.items() if count}


class SerialWrites:
    """A database that stores events only after earlier ordinary writes, as SQLite does."""

    last_write: "asyncio.Future[Any] | None" = None

    def write(self, body: Any) -> Any:
        self.last_write = asyncio.ensure_future(super().write(body))
        return self.last_write

    async def append(self, groups: Any) -> Any:
        if self.last_write is not None:
            await asyncio.wait([self.last_write])
        return await super().append(groups)


async def test_an_event_stored_during_an_enable_is_sent(place: Place) -> None:
    async with World(place, database=SerialWrites) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        await world.accept(2)
        enabling = asyncio.ensure_future(world.store_enabled(endpoint.seq, HeldAction.KEEP))
        await asyncio.sleep(0)
        # The events are accepted while the endpoint is paused in the cache, and stored after it is enabled.
        assert endpoint.record.state is EndpointState.PAUSED
        stored = await world.accept(3)
        await enabling
        await world.run_for(6 * SECOND)
        assert await world.statuses() == {Status.HELD: 2, Status.DELIVERED: 3}
        assert events_sent(world) == ids(stored)


@pytest.mark.parametrize("ended", [Status.DELIVERED, Status.FAILED])
async def test_a_resend_interrupted_by_a_pause_restores_the_status(place: Place, ended: Status) -> None:
    async with World(place, delays_ms=[], endpoint_in_flight_max=1) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(200 if ended is Status.DELIVERED else 500))
        first, second = await world.accept(2)
        (before, _) = await world.deliveries()
        world.sender.scripts["one.test"] = lambda _: None
        await resend(world, second.seq, endpoint.seq)
        # The other delivery is in flight, so this one waits in memory.
        await resend(world, first.seq, endpoint.seq)
        await world.pause(endpoint.seq)
        sent = len(world.sender.sent)
        await world.run_for(20 * SECOND)
        (after, _) = await world.deliveries()
        assert len(world.sender.sent) == sent
        assert await world.statuses() == {ended: 2}
        assert (after.completed_at, after.failed_reason) == (before.completed_at, before.failed_reason)
        assert (after.resume_status, after.trigger) == (None, Trigger.SCHEDULE)


async def test_an_interrupted_resend_of_a_pending_delivery_is_held(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        (stored,) = await world.accept(1)
        world.sender.latency_ms["one.test"] = 1000
        await resend(world, stored.seq, endpoint.seq)
        await world.pause(endpoint.seq)
        await world.run_for(10 * SECOND)
        (row,) = await world.deliveries()
        assert (row.status, row.due_at, row.completed_at, row.resume_status) == (Status.HELD, None, None, None)


async def test_deliveries_of_an_endpoint_missing_in_the_cache_wait(place: Place) -> None:
    """A scan may find the registration event of a new endpoint before the cache has the endpoint."""
    async with World(place) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        await world.accept(1)
        world.cache.drop_endpoint(endpoint.seq)
        await world.run_for(20 * SECOND)
        assert await world.statuses() == {Status.PENDING: 1}
        world.sender.scripts["one.test"] = lambda _: respond(200)
        world.cache.put_endpoint(endpoint.record)
        await world.run_for(10 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 1}


class Interrupted:
    """A database that calls back after the last batch of a drop, before its caller continues."""

    after: Any = None

    async def write(self, body: Any) -> Any:
        result = await super().write(body)  # type: ignore[misc]
        if isinstance(result, DropResult) and result.completed_through is not None and self.after is not None:
            interrupt, self.after = self.after, None
            await interrupt()
        return result


@pytest.mark.parametrize("what", ["deleted", "paused and enabled"])
async def test_a_change_at_the_end_of_a_drop_persists(place: Place, what: str) -> None:
    async with World(place, database=Interrupted) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        await world.accept(5)
        await world.enable(endpoint.seq, HeldAction.DROP)

        async def deleted() -> None:
            await world.delete_endpoint(endpoint.seq)

        async def paused_and_enabled() -> None:
            await world.pause(endpoint.seq)
            await world.store_enabled(endpoint.seq, HeldAction.KEEP)

        world.database.after = deleted if what == "deleted" else paused_and_enabled
        await world.run_for(5 * SECOND)
        assert world.database.after is None
        assert (endpoint.seq in world.cache.endpoints) == (what != "deleted")
        assert endpoint.record.held_action is (HeldAction.KEEP if what != "deleted" else None)
        assert await world.statuses() == {Status.CANCELLED: 5}


@pytest.mark.parametrize("action", [None, HeldAction.DROP])
async def test_deliveries_that_another_process_sends_or_drops_are_not_held(
    place: Place, action: HeldAction | None
) -> None:
    """This process knows only that the endpoint was paused, and not that it was enabled again."""
    async with World(place) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        await world.accept(3)
        before = endpoint.record

        def change_in_another_process(connection: Transaction) -> None:
            if action is HeldAction.DROP:
                endpoints.enable(connection, endpoint.seq, action, now=START)
                endpoints.deactivate(connection, endpoint.seq, EndpointState.PAUSED, None, now=START)

        world.cache.put_endpoint(structs.replace(before, state=EndpointState.PAUSED, state_since=START))
        await world.database.write(change_in_another_process)
        assert await world.parts.changes.finish_holding(endpoint.seq, SECOND)
        assert await world.statuses() == {Status.PENDING: 3}


async def test_a_drop_does_not_complete_during_a_concurrent_hold(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test")
        await pause_during_drop(world, endpoint.seq, 1500)
        cancel_held, missed = endpoint_backlog.cancel_held, [0]

        def miss_one_delivery(*arguments: Any, **named: Any) -> int:
            # The concurrent hold adds a delivery just after this call has found none.
            return missed.pop() if missed else cancel_held(*arguments, **named)

        monkeypatch.setattr(endpoint_backlog, "cancel_held", miss_one_delivery)
        await world.stepping(world.parts.changes.finish_holding(endpoint.seq, 3 * SECOND))
        assert not missed
        assert await world.statuses() == {Status.CANCELLED: 1500}


async def test_a_drop_skips_deliveries_that_another_process_holds(place: Place) -> None:
    """A worker does the drop for the API process. It skips a delivery that the API process sets to held meanwhile."""
    async with Fleet(place) as fleet:
        await fleet.start(ProcessRole.API)
        worker = await fleet.start(ProcessRole.WORKER)
        endpoint = await fleet.endpoint("one.test", lambda _: respond(500))
        await fleet.run_for(3 * SECOND)
        fleet.sender.latency_ms["one.test"] = 4 * SECOND
        await fleet.accept(1)
        await fleet.run_for(1200)
        await fleet.pause(endpoint.seq)
        await fleet.run_for(1200)
        await fleet.accept(9000)
        await fleet.stepping(fleet.enable(endpoint.seq, HeldAction.DROP))
        await fleet.run_for(600)
        await fleet.pause(endpoint.seq)
        await fleet.run_for(1300)
        assert fleet.sender.in_flight["one.test"] == 0
        live = worker.cache.endpoints[endpoint.seq]
        assert live.record.held_action is HeldAction.DROP
        await fleet.stepping(fleet.parts.changes.finish_holding(endpoint.seq, 3 * SECOND))
        assert await fleet.statuses() == {Status.CANCELLED: 9000, Status.HELD: 1}
        assert live.record.held_action is HeldAction.DROP
        await fleet.run_for(10 * SECOND)
        assert await fleet.statuses() == {Status.CANCELLED: 9000, Status.HELD: 1}


class CanBeUnavailable:
    """A database that can be unavailable for releases of held deliveries and for ordinary writes."""

    is_unavailable = False

    def release_held(self, requests: Any, *, now: int) -> Any:
        return self._raise_unavailable() if self.is_unavailable else super().release_held(requests, now=now)

    def write(self, body: Any) -> Any:
        return self._raise_unavailable() if self.is_unavailable else super().write(body)

    async def _raise_unavailable(self) -> Any:
        raise Unavailable("disk full")


@pytest.mark.parametrize("held", list(HeldAction))
async def test_an_unavailable_database_loses_nothing(place: Place, held: HeldAction) -> None:
    async with World(place, database=CanBeUnavailable) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        await world.accept(20)
        await world.enable(endpoint.seq, held)
        world.database.is_unavailable = True  # type: ignore[attr-defined]
        await world.run_for(10 * SECOND)
        assert (await world.statuses())[Status.HELD] >= 15
        world.database.is_unavailable = False  # type: ignore[attr-defined]
        await world.run_for(10 * SECOND)
        expected = {HeldAction.SEND: Status.DELIVERED, HeldAction.DROP: Status.CANCELLED, HeldAction.KEEP: Status.HELD}
        assert await world.statuses() == {expected[held]: 20}


async def test_a_release_continues_after_another_batch_failed(place: Place) -> None:
    async with World(place, database=CanBeUnavailable, scan_every_ms=HOUR) as world:
        releasing, pausing = await world.endpoint("one.test"), await world.endpoint("two.test", lambda _: respond(500))
        await world.pause(releasing.seq)
        await world.accept(20)
        await world.enable(releasing.seq)
        world.database.is_unavailable = True  # type: ignore[attr-defined]
        world.parts.changes.apply(structs.replace(pausing.record, state=EndpointState.PAUSED))
        await world.run_for(10 * SECOND)
        world.database.is_unavailable = False  # type: ignore[attr-defined]
        await world.run_for(10 * SECOND)
        assert len(world.sender.times("one.test")) == 20


async def test_deliveries_pending_at_a_remote_pause_are_dropped(place: Place) -> None:
    """The process that enables the endpoint does not know of the pause yet."""
    async with World(place) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        await world.accept(5)
        await pause_in_another_process(world, endpoint.seq)
        before = len(world.sender.sent)
        await world.stepping(Owner(world).enable(endpoint.seq, HeldAction.DROP))
        await world.run_for(10 * MINUTE)
        assert len(world.sender.sent) == before
        assert await world.statuses() == {Status.CANCELLED: 5}
        assert world.cache.endpoints[endpoint.seq].record.state is EndpointState.ENABLED


async def test_the_latest_of_two_pauses_applies(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the pause decides how long enabling waits for deliveries in the memory of other processes."""
    async with World(place) as world:
        endpoint = await world.endpoint("one.test")
        await world.pause(endpoint.seq)
        await world.run_for(10 * MINUTE)
        await world.database.write(lambda c: endpoints.enable(c, endpoint.seq, HeldAction.SEND, now=world.clock.now))
        await pause_in_another_process(world, endpoint.seq)
        held_after: list[int | None] = []
        finish_holding = world.parts.changes.finish_holding

        async def record_state(seq: int, within_ms: int) -> bool:
            held_after.append(world.cache.endpoints[seq].record.state_since)
            return await finish_holding(seq, within_ms)

        monkeypatch.setattr(world.parts.changes, "finish_holding", record_state)
        now = world.clock.now
        await world.stepping(Owner(world).enable(endpoint.seq, HeldAction.DROP))
        assert held_after == [now - 10 * MINUTE, now]
        assert world.cache.endpoints[endpoint.seq].record.state is EndpointState.ENABLED


async def test_an_endpoint_stays_paused_if_holding_times_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        await world.accept(5)
        await pause_in_another_process(world, endpoint.seq)
        before = len(world.sender.sent)

        async def too_slow(seq: int, _within_ms: int) -> bool:
            return world.cache.endpoints[seq].record.state is EndpointState.ENABLED

        with monkeypatch.context() as patch:
            patch.setattr(world.parts.changes, "finish_holding", too_slow)
            with pytest.raises(Busy):
                await Owner(world).enable(endpoint.seq, HeldAction.DROP)
        await world.run_for(10 * MINUTE)
        assert len(world.sender.sent) == before
        assert await world.statuses() == {Status.HELD: 5}


async def pause_in_another_process(world: World, seq: int) -> None:
    """Let another process pause an endpoint without a notification."""
    now = world.clock.now
    await world.database.write(lambda c: endpoints.deactivate(c, seq, EndpointState.PAUSED, None, now=now))
