"""Limits on the memory of an account, and on its work in one turn of the event loop and in one database write."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest
from tests.engines import Place

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.limits import RELEASE_BATCH_MAX, SETTLE_BATCH_MAX
from uplift_server.delivery.scheduling import lanes
from uplift_server.delivery.scheduling.dispatcher import Dispatcher
from uplift_server.store import endpoints
from uplift_server.store.hot_records import HealthRow, Settlement

from .world import SECOND, World, respond


async def test_other_accounts_leave_memory_for_an_account(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, its deliveries would wait in the database until attempts of the other accounts time out."""
    monkeypatch.setattr(lanes, "LANES_SHARED_BODY_BYTES_MAX", 400_000)
    monkeypatch.setattr(lanes, "LANES_BODY_BYTES_MAX", 500_000)
    monkeypatch.setattr(lanes, "ACCOUNT_LANES_BODY_BYTES_MAX", 100_000)
    monkeypatch.setattr(lanes, "ACCOUNT_LITTLE_BODY_BYTES_MAX", 10_000)
    async with World(place, in_flight_max=100, endpoint_in_flight_max=4) as world:
        other = await world.new_account()
        await world.endpoint("well.test", account=other)
        for number in range(5):
            hanging = await world.new_account()
            hosts = [f"hangs{number}-{each}.test" for each in range(4)]
            for host in hosts:
                await world.endpoint(host, account=hanging)
            await world.accept(5, account=hanging)
            for host in hosts:
                world.sender.scripts[host] = lambda _: None
            for _ in range(12):
                await world.accept(5, account=hanging, pad=1000)
        assert world.parts.lanes.bytes_held > 400_000
        await world.accept(5, account=other, pad=1000)
        assert len(world.sender.times("well.test")) == 5


async def test_the_guaranteed_memory_of_accounts_is_small(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart, all deliveries are due. The process must not hold a large batch of each account."""
    monkeypatch.setattr(lanes, "LANES_SHARED_BODY_BYTES_MAX", 75_000)
    monkeypatch.setattr(lanes, "LANES_BODY_BYTES_MAX", 100_000)
    monkeypatch.setattr(lanes, "LEASE_BATCH_BODY_BYTES_MAX", 50_000)
    monkeypatch.setattr(lanes, "ACCOUNT_LITTLE_BODY_BYTES_MAX", 2_000)
    monkeypatch.setattr(lanes, "LANE_LITTLE_BODY_BYTES_MAX", 2_000)
    async with World(place, endpoint_in_flight_max=4) as world:
        world.parts.lanes.draining = True
        for number in range(30):
            account = await world.new_account()
            await world.endpoint(f"hangs{number}.test", lambda _: None, account=account)
            await world.accept(20, account=account, pad=1000)
        await world.kill()
        assert 70_000 <= world.parts.lanes.bytes_held <= 150_000


async def test_events_accepted_together_respect_the_memory_limit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies count from the moment that a lane has room for them, not only when they are stored."""
    monkeypatch.setattr(lanes, "LANES_SHARED_BODY_BYTES_MAX", 75_000)
    monkeypatch.setattr(lanes, "LANES_BODY_BYTES_MAX", 100_000)
    monkeypatch.setattr(lanes, "ACCOUNT_LITTLE_BODY_BYTES_MAX", 2_000)
    monkeypatch.setattr(lanes, "LANE_LITTLE_BODY_BYTES_MAX", 2_000)
    async with World(place, endpoint_in_flight_max=4) as world:
        for number in range(30):
            account = await world.new_account()
            await world.endpoint(f"hangs{number}.test", lambda _: None, account=account)
            await world.accept(20, account=account, pad=1000)
        assert 70_000 <= world.parts.lanes.bytes_held <= 150_000


async def test_other_endpoints_leave_memory_for_an_endpoint(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, a few hanging endpoints would stop all endpoints of their account."""
    monkeypatch.setattr(lanes, "ACCOUNT_LANES_BODY_BYTES_MAX", 50_000)
    monkeypatch.setattr(lanes, "LANE_LITTLE_BODY_BYTES_MAX", 10_000)
    async with World(place) as world:
        hosts = [f"hangs{each}.test" for each in range(5)]
        for host in ("well.test", *hosts):
            await world.endpoint(host)
        await world.accept(5)
        for host in hosts:
            world.sender.scripts[host] = lambda _: None
        for _ in range(12):
            await world.accept(5, pad=1000)
        assert world.parts.lanes.bytes_held >= 49_000
        assert len(world.sender.times("well.test")) == 13 * 5


async def test_an_account_regains_its_share_of_memory(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "ACCOUNT_LANES_BODY_BYTES_MAX", 100_000)
    async with World(place, endpoint_in_flight_max=1) as world:
        kept, deleted, paused = [await world.endpoint(f"{name}.test") for name in ("kept", "deleted", "paused")]
        await world.accept(5)
        for name in ("kept", "deleted", "paused"):
            world.sender.scripts[f"{name}.test"] = lambda _: None
        await world.accept(20, pad=1000)
        assert world.parts.lanes.bytes_held > 50_000
        await world.delete_endpoint(deleted.seq)
        await world.pause(paused.seq)
        await world.settle()
        world.sender.scripts["kept.test"] = lambda _: respond(200)
        await world.run_for(60 * SECOND)
        lane = world.parts.lanes.find(kept.seq)
        assert lane is not None
        assert len(world.sender.times("kept.test")) >= 20
        assert lane.account_share.waiting_bytes == world.parts.lanes.bytes_held == 0


async def test_an_account_starts_few_attempts_per_turn_of_the_event_loop(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests can run between the turns, and every attempt still starts on time."""
    async with World(place) as world:
        for number in range(100):
            await world.endpoint(f"r{number}.test")
        turns: list[int] = []
        send = world.sender.send

        def counted(request: Any, done: Any) -> None:
            if not turns or turns[-1] == 0:
                turns.append(0)
                asyncio.get_running_loop().call_soon(turns.append, 0)
            turns[-1] += 1
            send(request, done)

        monkeypatch.setattr(world.sender, "send", counted)
        at = world.clock.now
        await world.accept(1)
        assert sum(turns) == 100
        assert max(turns) <= 2 * lanes.ACCOUNT_STARTS_MAX
        assert {sent_at for sent_at, _, _ in world.sender.sent} == {at}


class Recorded:
    """A database that records the size of each batch."""

    released: list[int]
    settled: list[int]
    failures: Counter[int]
    """The number of failed attempts in all batches so far, by endpoint number."""
    premature: list[HealthRow]
    """Written health rows that count failures whose outcomes are in none of the batches so far."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.released, self.settled = [], []
        self.failures, self.premature = Counter(), []

    async def release(self, leases: Sequence[tuple[int, int, int]], *, now: int) -> None:
        self.released.append(len(leases))
        await super().release(leases, now=now)  # type: ignore[misc]

    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> Awaitable[frozenset[tuple[int, int]]]:
        self.settled.append(len(settlements))
        self.failures.update(each.endpoint_seq for each in settlements if each.last_outcome != Outcome.DELIVERED)
        self.premature += [row for row in health if row.consecutive_failures > self.failures[row.endpoint_seq]]
        result: Awaitable[frozenset[tuple[int, int]]] = super().settle(settlements, health, process_id=process_id)  # type: ignore[misc]
        return result


async def test_releases_and_outcomes_are_written_in_batches(place: Place) -> None:
    """A single write of all releases or outcomes would delay the events of every account."""
    async with World(place, database=Recorded, endpoint_in_flight_max=1, in_flight_max=10_000) as world:
        for number in range(6):
            await world.endpoint(f"hangs{number}.test")
        await world.accept(5)
        for number in range(6):
            world.sender.scripts[f"hangs{number}.test"] = lambda _: None
        await world.accept(500)
        dispatcher: Dispatcher = world.parts.dispatcher
        released = world.parts.lanes.empty_all()
        for delivery in released:
            dispatcher.release_lease(delivery)
        await world.settle()
        assert len(released) > 2 * RELEASE_BATCH_MAX
        assert sum(world.database.released) >= len(released)
        assert max(world.database.released) <= RELEASE_BATCH_MAX
        for number in range(6):
            world.sender.scripts[f"hangs{number}.test"] = lambda _: respond(200)
        await world.run_for(120 * SECOND)
        assert max(world.database.settled) <= SETTLE_BATCH_MAX


async def test_health_is_stored_with_the_last_outcome_that_it_counts(place: Place) -> None:
    """Otherwise, if the process ended between two batches, the outcomes of the second batch would count twice."""
    async with World(place, database=Recorded, endpoint_in_flight_max=1000, in_flight_max=10_000) as world:
        failing = [await world.endpoint(f"fails{number}.test") for number in range(3)]
        for _ in range(100):
            await world.accept(10)
        for number in range(3):
            world.sender.scripts[f"fails{number}.test"] = lambda _: None
        await world.accept(900)
        world.database.settled.clear()
        await world.run_for(16 * SECOND)
        assert max(world.database.settled) == SETTLE_BATCH_MAX
        assert not world.database.premature
        assert [endpoint.health.consecutive_failures for endpoint in failing] == [900] * 3
        stored = await world.database.read(endpoints.list_live)
        assert [record.health.consecutive_failures for record in stored] == [900] * 3
