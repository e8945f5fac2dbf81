"""Interruptions of one process, such as crashes, stops and late messages, do not affect the others."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import pytest
from tests.engines import Place

from uplift_server.core.deliveries.health import HealthRule
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import Status
from uplift_server.core.operations.clock_offset import ClockReading
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.delivery.cluster.cluster import Cluster
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.health.monitor import HealthSettings
from uplift_server.store import accounts, endpoints, health, processes
from uplift_server.store.errors import Rejected, Unavailable
from uplift_server.store.processes import Process
from uplift_server.store.records import EndpointState

from .fleet import Fleet, fleet_with_endpoints, owner_and_other, unavailable
from .owner import Owner
from .test_replays import create_failed, replay, stored
from .world import SECOND, World, respond

R = TypeVar("R")


async def test_a_heartbeat_during_an_eviction_prevents_it(place: Place) -> None:
    async with Fleet(place) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1, max_in_flight=1)
        suspended, other = owner_and_other(fleet, seq)
        fleet.sender.latency_ms["h0.test"] = 3 * SECOND
        fleet.switch_to(suspended)
        await fleet.accept(5)
        number = suspended.process_id
        suspended.line.cut = True
        evict = other.membership._evict
        evicted = []

        async def evict_too_late(process: Process) -> None:
            evicted.append(process.seq)
            suspended.line.cut = False
            await suspended.membership.send_heartbeat()
            await evict(process)

        other.membership._evict = evict_too_late  # type: ignore[method-assign]
        await fleet.run_for(30 * SECOND)
        assert evicted == [number]
        assert suspended.process_id == number
        assert len(fleet.sender.sent) == 5
        assert await fleet.statuses() == {Status.DELIVERED: 5}


async def test_health_from_an_evicted_process_has_no_effect(place: Place) -> None:
    """The evicted process still considers the endpoint failing. Only the health at the new owner is stored."""
    health_settings = HealthSettings(HealthRule(20 * SECOND, 40 * SECOND))
    async with Fleet(place, delays_ms=[5 * SECOND] * 100, health_settings=health_settings) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        disconnected, _ = owner_and_other(fleet, seq)
        fleet.switch_to(disconnected)
        fleet.sender.scripts["h0.test"] = lambda _: respond(500)
        await fleet.accept(1)
        await fleet.run_for(28 * SECOND)
        fleet.sender.latency_ms["h0.test"] = 15 * SECOND
        await fleet.run_for(5 * SECOND)
        assert fleet.sender.in_flight["h0.test"] == 1
        assert disconnected.cache.endpoints[seq].health.warned
        disconnected.line.cut = True
        sync, disconnected.cache_sync.sync = disconnected.cache_sync.sync, unavailable  # type: ignore[method-assign]
        del fleet.sender.latency_ms["h0.test"], fleet.sender.scripts["h0.test"]
        await fleet.run_for(20 * SECOND)
        assert disconnected.cache.endpoints[seq].health.failing_since is not None
        assert await fleet.statuses() == {Status.DELIVERED: 1}
        stored_health = (await fleet.database.read(lambda c: health.get(c, [seq])))[seq]
        assert (stored_health.status, stored_health.warned_at) == ("healthy", None)
        disconnected.line.cut = False
        disconnected.cache_sync.sync = sync  # type: ignore[method-assign]
        await fleet.run_for(10 * SECOND)
        [record] = await fleet.database.read(lambda c: endpoints.find(c, [seq]))
        assert (record.state, record.consecutive_failures) == (EndpointState.ENABLED, 0)


async def test_a_success_during_a_handover_recovers_the_endpoint(place: Place) -> None:
    async with Fleet(place, delays_ms=[5 * SECOND] * 100) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        leaving, other = owner_and_other(fleet, seq)
        fleet.switch_to(leaving)
        fleet.sender.scripts["h0.test"] = lambda _: respond(500)
        await fleet.accept(1)
        await fleet.run_for(8 * SECOND)
        assert leaving.cache.endpoints[seq].health.failing_since is not None
        del fleet.sender.scripts["h0.test"]
        fleet.sender.latency_ms["h0.test"] = 8 * SECOND
        await fleet.run_for(5 * SECOND)
        assert fleet.sender.in_flight["h0.test"] == 1
        await fleet.stop_peer(leaving)
        fleet.switch_to(other)
        await fleet.run_for(2 * SECOND)
        assert other.owns(seq)
        assert await fleet.statuses() == {Status.DELIVERED: 1}
        for found in (
            other.cache.endpoints[seq].health,
            (await fleet.database.read(lambda c: health.get(c, [seq])))[seq],
        ):
            assert (found.status, found.consecutive_failures) == ("healthy", 0)


async def test_outcomes_from_before_an_eviction_are_not_stored_after_it(place: Place) -> None:
    """After an eviction, the process has a new process ID, but the outcomes belong to the old one."""
    async with Fleet(place, database=RejectsProcess) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        disconnected, _ = owner_and_other(fleet, seq)
        fleet.switch_to(disconnected)
        fleet.sender.scripts["h0.test"] = lambda _: respond(500)
        fleet.sender.latency_ms["h0.test"] = SECOND
        await fleet.accept(1)
        await fleet.run_for(SECOND // 2)
        del fleet.sender.latency_ms["h0.test"], fleet.sender.scripts["h0.test"]
        number = disconnected.process_id
        fleet.database.rejected_process_id = number
        disconnected.line.cut = True
        sync, disconnected.cache_sync.sync = disconnected.cache_sync.sync, unavailable  # type: ignore[method-assign]
        await fleet.run_for(10 * SECOND)
        assert fleet.database.has_rejected_health
        assert await fleet.statuses() == {Status.DELIVERED: 1}
        disconnected.line.cut = False
        await disconnected.membership.send_heartbeat()
        disconnected.cache_sync.sync = sync  # type: ignore[method-assign]
        fleet.database.rejected_process_id = 0
        await fleet.run_for(5 * SECOND)
        assert disconnected.process_id != number
        assert (await fleet.database.read(lambda c: health.get(c, [seq])))[seq].status == "healthy"


class RejectsProcess:
    """A database that fails every settlement batch of one process."""

    rejected_process_id = 0
    """The ID of the process whose settlements are rejected; 0 for none."""
    has_rejected_health = False

    async def settle(self, settlements: Any, health: Any = (), *, process_id: int = 0) -> Any:
        if process_id and process_id == self.rejected_process_id:
            self.has_rejected_health = self.has_rejected_health or bool(health)
            raise Unavailable("the database is not seen")
        return await super().settle(settlements, health, process_id=process_id)  # type: ignore[misc]


async def test_a_failover_that_sets_the_clock_forward_evicts_no_process(place: Place) -> None:
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=2, hosts=1)
        before = [(each.seq, each.started_at) for each in await fleet.database.read(processes.list_all)]
        for peer in fleet.peers:
            peer.line.cut = True
        await fleet.run_for(5 * SECOND)
        for peer in fleet.peers:
            peer.line.cut = False
        peer = fleet.peers[0]
        membership, ahead_ms = peer.membership, 120 * SECOND
        read_time, add_reading = membership._read_time, membership._time.add_reading

        def set_forward(reading: ClockReading) -> None:
            add_reading(reading)
            fleet.clock.now += ahead_ms

        membership._read_time = lambda connection: read_time(connection) + ahead_ms
        membership._time.add_reading = set_forward  # type: ignore[method-assign]
        await membership.send_heartbeat()
        membership._read_time = read_time
        membership._time.add_reading = add_reading  # type: ignore[method-assign]
        await fleet.run_for(30 * SECOND)
        assert [(each.seq, each.started_at) for each in await fleet.database.read(processes.list_all)] == before


async def test_an_evicted_process_sends_nothing_before_it_rejoins(place: Place) -> None:
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=1, hosts=1)
        await fleet.start(ProcessRole.API)
        membership = fleet.peers[0].membership
        number, join = fleet.peers[0].process_id, membership.join
        membership.join = unavailable  # type: ignore[method-assign]
        await fleet.database.write(lambda c: processes.remove(c, number))
        await fleet.run_for(SECOND)
        await fleet.accept(1)
        await fleet.run_for(SECOND)
        assert fleet.sender.sent == []
        membership.join = join  # type: ignore[method-assign]
        await fleet.run_for(5 * SECOND)
        assert fleet.peers[0].process_id != number
        assert (len(fleet.sender.sent), await fleet.statuses()) == (1, {Status.DELIVERED: 1})


async def test_a_process_sends_heartbeats_while_it_ends_many_leases(place: Place) -> None:
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=3, hosts=6)
        await fleet.accept(1)
        reclaim, ended = fleet.database.reclaim, []

        async def reclaim_slowly(**named: Any) -> int:
            if "process_id" in named:
                await fleet.clock.wait(asyncio.Event(), 8 * SECOND)
                ended.append(named["process_id"])
            return int(await reclaim(**named))

        fleet.database.reclaim = reclaim_slowly
        victim = fleet.peers[2]
        await fleet.kill_peer(victim)
        numbers = [peer.process_id for peer in fleet.peers]
        for _ in range(20):
            await fleet.run_for(SECOND)
            assert [peer.parts.status.heartbeat_age_ms() for peer in fleet.peers] == [None, None]
        assert set(ended) == {victim.process_id}
        assert [peer.process_id for peer in fleet.peers] == numbers


async def test_leases_of_an_evicted_process_end_after_a_lost_response(place: Place) -> None:
    async with Fleet(place) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1, max_in_flight=1)
        victim, other = owner_and_other(fleet, seq)
        fleet.sender.latency_ms["h0.test"] = 3 * SECOND
        fleet.switch_to(victim)
        await fleet.accept(3)
        write, lost = other.line.write, []

        async def lose_response(body: Callable[..., object]) -> object:
            result = await write(body)
            if result is True and not lost:
                lost.append(True)
                raise Unavailable("no answer")
            return result

        other.line.write = lose_response  # type: ignore[method-assign]
        await fleet.kill_peer(victim)
        fleet.switch_to(other)
        # Wait for much less time than a lease lasts.
        await fleet.run_for(8 * SECOND)
        assert lost
        assert fleet.sender.in_flight["h0.test"] == 1


async def test_a_test_waits_until_the_worker_has_the_endpoint(place: Place) -> None:
    async with Fleet(place) as fleet:
        api, worker = await fleet.start(ProcessRole.API), await fleet.start(ProcessRole.WORKER)
        await fleet.run_for(3 * SECOND)
        seq = (await fleet.endpoint("new.test")).seq
        assert seq not in worker.cache.endpoints
        fleet.switch_to(api)
        result = await Owner(fleet).test(seq)
        assert result.delivery.status is Status.DELIVERED


async def test_a_new_process_lists_the_workers(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    arrive, known = Cluster.arrive, []

    async with Fleet(place) as fleet:

        async def record_arrival(cluster: Cluster, *, delivers: bool) -> None:
            await arrive(cluster, delivers=delivers)
            status = fleet.peers[-1].parts.status
            known.append((status.sends(), [each.role for each in status.processes() or ()]))

        await fleet.start(ProcessRole.WORKER)
        await fleet.run_for(3 * SECOND)
        monkeypatch.setattr(Cluster, "arrive", record_arrival)
        await fleet.start(ProcessRole.API)
    assert known == [(True, [ProcessRole.WORKER, ProcessRole.API])]


async def test_a_replay_of_an_endpoint_deleted_without_a_worker_is_cancelled(place: Place) -> None:
    async with Fleet(place, delays_ms=()) as fleet:
        worker, api = await fleet.start(ProcessRole.WORKER), await fleet.start(ProcessRole.API)
        await fleet.run_for(3 * SECOND)
        endpoint = await create_failed(fleet, 5)
        await fleet.run_for(SECOND)
        await fleet.stop_peer(worker)
        fleet.switch_to(api)
        job = await replay(fleet, endpoint)
        await fleet.delete_endpoint(endpoint.seq)
        await fleet.run_for(3 * SECOND)
        assert (await stored(fleet, job)).state is ReplayState.RUNNING
        await fleet.start(ProcessRole.WORKER)
        await fleet.run_for(5 * SECOND)
        assert (await stored(fleet, job)).state is ReplayState.CANCELLED


async def test_an_endpoint_created_during_a_start_is_in_the_cache(place: Place) -> None:
    async with Fleet(place) as fleet:
        await fleet.start()
        read = fleet.database.read
        created: list[LiveEndpoint] = []

        async def interrupted(body: Callable[..., object]) -> object:
            found = await read(body)
            if body is accounts.list_live and not created:
                created.append(await fleet.endpoint("new.test", account=await fleet.new_account()))
            return found

        fleet.database.read = interrupted
        late = await fleet.start()
        await late.cache_sync.sync()
        assert late.cache.endpoints[created[0].seq].record == created[0].record


async def test_an_account_deleted_through_another_process_drops_its_endpoints(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The changes of the endpoints arrive later. An endpoint must not outlive its account in the cache."""
    monkeypatch.setattr("uplift_server.delivery.cluster.cache_sync.SUBJECTS_MAX", 1)
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=2, hosts=0)
        account = await fleet.new_account()
        seq = (await fleet.endpoint("a.test", account=account)).seq
        await fleet.run_for(10 * SECOND)
        other = fleet.peers[1]
        assert seq in other.cache.endpoints
        read = other.cache_sync._read

        async def read_only_accounts(subjects: Collection[tuple[str, int]]) -> None:
            if any(kind != "accounts" for kind, _ in subjects):
                raise Unavailable("the database is not seen")
            await read(subjects)

        other.cache_sync._read = read_only_accounts  # type: ignore[method-assign]
        await fleet.database.write(lambda c: accounts.delete(c, account.id, now=fleet.clock.now))
        await fleet.run_for(SECOND)
        assert account.seq not in other.cache.accounts
        assert seq not in other.cache.endpoints


async def test_a_failed_loop_stops_an_api_process(place: Place) -> None:
    async with Fleet(place) as fleet:
        api = await fleet.start(ProcessRole.API)
        stopped: list[bool] = []
        fleet.on_loop_failure = lambda _: stopped.append(True)

        async def fail() -> None:
            raise RuntimeError("a defect")

        api.cache_sync.sync = fail  # type: ignore[method-assign]
        await fleet.run_for(SECOND)
        assert stopped == [True]


async def reject(*_: object, **__: object) -> Any:
    raise Rejected("a defect")


async def test_a_rejected_stop_notification_does_not_block_draining(place: Place) -> None:
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=1, hosts=1)
        [peer] = fleet.peers
        fleet.sender.latency_ms["h0.test"] = 2 * SECOND
        await fleet.accept(3)
        assert len(fleet.sender.sent) == 3
        peer.line.write = reject  # type: ignore[method-assign]
        await fleet.stop_peer(peer)
        assert await fleet.statuses() == {Status.DELIVERED: 3}


async def test_rejected_releases_do_not_block_draining(place: Place) -> None:
    async with World(place) as world:
        await world.endpoint("one.test", max_in_flight=1)
        world.sender.latency_ms["one.test"] = 2 * SECOND
        await world.accept(3)
        world.database.release = reject
        await world.stepping(world.engine.drain())
        assert await world.statuses() == {Status.DELIVERED: 1, Status.PENDING: 2}
