"""Several processes share the endpoints and the singleton jobs, even when processes start, stop and die."""

from collections import Counter

import sqlalchemy as sa
from tests.delivery.failing_owners import kinds
from tests.delivery.fleet import Fleet, fleet_with_endpoints, unavailable
from tests.delivery.world import HOUR, SECOND, respond
from tests.engines import Place

from uplift_server.core.deliveries.health import HealthRule
from uplift_server.core.lifecycle import Status
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.core.people.notifications import NotificationKind
from uplift_server.delivery.cluster.state import ClusterState
from uplift_server.delivery.health.monitor import HealthSettings
from uplift_server.store import endpoints
from uplift_server.store.records import EndpointState
from uplift_server.store.schema import deliveries


def count_by_owner(fleet: Fleet, seqs: list[int]) -> Counter[int]:
    """Return the number of endpoints by process ID. The key 0 counts endpoints without an owner."""
    found = [fleet.owner_of(seq) for seq in seqs]
    return Counter(0 if peer is None else peer.process_id for peer in found)


async def test_endpoints_are_shared_and_each_event_is_delivered_once(place: Place) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=3, hosts=30)
        shares = count_by_owner(fleet, seqs)
        assert set(shares) == {peer.process_id for peer in fleet.peers}
        for peer in fleet.peers:
            fleet.switch_to(peer)
            await fleet.accept(5)
        await fleet.run_for(3 * SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 3 * 5 * 30}
        assert len(fleet.sender.sent) == 3 * 5 * 30
        assert all(peer.sender.sent for peer in fleet.peers)


async def test_the_owner_sends_within_a_second_without_notifications(
    place: Place,
) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        fleet.switch_to(next(peer for peer in fleet.peers if not peer.owns(seqs[0])))
        await fleet.accept(1)
        await fleet.run_for(10)
        assert len(fleet.sender.sent) == 1
        fleet.bus.silent = True
        await fleet.accept(1)
        await fleet.run_for(SECOND)
        assert len(fleet.sender.sent) == 2


async def test_an_api_process_sends_nothing(place: Place) -> None:
    async with Fleet(place) as fleet:
        await fleet.start(ProcessRole.API)
        await fleet.endpoint("a.test")
        await fleet.accept(3)
        await fleet.run_for(20 * SECOND)
        assert fleet.sender.sent == []
        worker = await fleet.start(ProcessRole.WORKER)
        await fleet.run_for(3 * SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 3}
        assert worker.sender.sent == 3


async def test_the_loads_of_all_processes_are_summed(place: Place) -> None:
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=2, hosts=6)
        api = await fleet.start(ProcessRole.API)
        await fleet.run_for(3 * SECOND)
        fleet.switch_to(api)
        await fleet.accept(3)
        await fleet.run_for(3 * SECOND)
        parts = [peer.parts for peer in fleet.peers]
        assert [each.counters.accepted for each in parts] == [0, 0, 3]
        delivered = [each.counters.ended[Status.DELIVERED] for each in parts]
        assert (sum(delivered), delivered[-1]) == (3 * 6, 0)
        slots = [each.status.own_load().in_flight_max for each in parts]
        assert slots[-1] == 0
        assert sum(slots) == api.parts.status.load().in_flight_max
        # A process that makes no deliveries does not count as stopped.
        assert not any(each.status.own_load().stopped for each in parts)


async def test_a_new_worker_respects_the_concurrency_limit(place: Place) -> None:
    """Attempts in flight of the previous owner count until they end."""
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=1, hosts=20, max_in_flight=3)
        fleet.sender.latency_ms.update({f"h{number}.test": 4 * SECOND for number in range(20)})
        await fleet.accept(12)
        await fleet.run_for(SECOND)
        await fleet.start()
        await fleet.run_for(2 * SECOND)
        assert len(count_by_owner(fleet, seqs)) == 2
        await fleet.run_for(20 * SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 12 * 20}
        assert max(fleet.sender.in_flight_most.values()) == 3
        assert len(fleet.sender.sent) == 12 * 20


async def test_other_processes_take_over_the_deliveries_of_a_dead_process(place: Place) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=3, hosts=20)
        fleet.sender.latency_ms.update({f"h{number}.test": 60 * SECOND for number in range(20)})
        await fleet.accept(2)
        await fleet.run_for(100)
        assert len(fleet.sender.sent) == 40
        victim = fleet.peers[0]
        await fleet.kill_peer(victim)
        fleet.sender.latency_ms.clear()
        fleet.switch_to(fleet.peers[0])
        await fleet.run_for(8 * SECOND)
        assert 0 not in count_by_owner(fleet, seqs)
        assert len(fleet.sender.sent) == 40 + victim.sender.sent
        assert await fleet.statuses() == {Status.DELIVERED: victim.sender.sent, Status.PENDING: 40 - victim.sender.sent}


async def test_a_stop_hands_over_all_endpoints_immediately(place: Place) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=10)
        leaving = fleet.peers[1]
        fleet.switch_to(fleet.peers[0])
        await fleet.stop_peer(leaving)
        await fleet.run_for(200)
        assert set(count_by_owner(fleet, seqs)) == {fleet.peers[0].process_id}
        await fleet.accept(4)
        await fleet.run_for(SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 40}


async def test_a_process_without_heartbeats_stops_before_its_eviction(place: Place) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=10)
        disconnected = fleet.peers[1]
        disconnected.line.cut = True
        fleet.switch_to(fleet.peers[0])
        await fleet.run_for(4500)
        sent = disconnected.sender.sent
        assert [peer.parts.status.heartbeat_age_ms() is None for peer in fleet.peers] == [True, False]
        # A process whose membership has expired reports no live processes.
        assert [len(peer.parts.status.processes()) for peer in fleet.peers] == [2, 0]
        await fleet.accept(3)
        await fleet.run_for(10 * SECOND)
        assert disconnected.sender.sent == sent
        assert await fleet.statuses() == {Status.DELIVERED: 30}
        disconnected.line.cut = False
        await fleet.run_for(5 * SECOND)
        assert disconnected.parts.status.heartbeat_age_ms() is None
        assert len(count_by_owner(fleet, seqs)) == 2
        await fleet.accept(3)
        await fleet.run_for(2 * SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 60}
        assert disconnected.sender.sent > sent


async def test_events_that_a_process_without_heartbeats_accepts_are_delivered_by_others(place: Place) -> None:
    """It loses its connection for notifications and heartbeats, but can still store events."""
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=2, hosts=10)
        disconnected = fleet.peers[1]
        disconnected.line.cut = True
        fleet.switch_to(disconnected)
        for _ in range(4):
            await fleet.run_for(3 * SECOND)
            await fleet.accept(1)
        await fleet.run_for(8 * SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 40}
        assert len(fleet.sender.sent) == 40


async def test_a_process_sends_what_it_accepted_without_heartbeats_after_the_next_one(place: Place) -> None:
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=1, hosts=3)
        [peer] = fleet.peers
        peer.line.cut = True
        await fleet.run_for(4500)
        await fleet.accept(2)
        await fleet.run_for(SECOND)
        assert fleet.sender.sent == []
        peer.line.cut = False
        await fleet.run_for(3 * SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 6}


async def test_late_leases_of_an_evicted_process_are_ended(place: Place) -> None:
    async with Fleet(place) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        owner = fleet.owner_of(seq)
        assert owner is not None
        other = next(peer for peer in fleet.peers if peer is not owner)
        await fleet.pause(seq)
        fleet.switch_to(other)
        await fleet.run_for(SECOND)
        before = other.process_id
        other.line.cut = True
        await fleet.run_for(10 * SECOND)
        [delivery] = await fleet.accept(1)
        leased = {"status": Status.PENDING, "lease_owner": before, "due_at": fleet.clock.now + HOUR}
        await fleet.database.write(
            lambda c: (
                c.execute(sa.update(deliveries).where(deliveries.c.event_seq == delivery.seq).values(**leased)).rowcount
            )
        )
        other.line.cut = False
        await fleet.run_for(3 * SECOND)
        assert {row.lease_owner for row in await fleet.deliveries()} == {0}


async def test_an_unavailable_database_evicts_no_process(place: Place) -> None:
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=3, hosts=3)
        numbers = [peer.process_id for peer in fleet.peers]
        for peer in fleet.peers:
            peer.line.cut = True
        await fleet.run_for(30 * SECOND)
        for peer in fleet.peers:
            peer.line.cut = False
            await fleet.run_for(SECOND)
        await fleet.run_for(10 * SECOND)
        assert [peer.process_id for peer in fleet.peers] == numbers


async def test_singleton_jobs_move_when_their_process_dies(place: Place) -> None:
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=2, hosts=4)

        def holders(job: SingletonJob) -> list[int]:
            return [n for n, peer in enumerate(fleet.peers) if peer.parts.jobs.holds(job)]

        assert all(len(holders(job)) == 1 for job in SingletonJob)
        [first] = holders(SingletonJob.STATISTICS)
        await fleet.kill_peer(fleet.peers[first])
        await fleet.run_for(SECOND)
        assert holders(SingletonJob.STATISTICS) == []
        await fleet.run_for(8 * SECOND)
        assert holders(SingletonJob.STATISTICS) == [0]


async def test_a_process_leaves_a_job_that_it_cannot_do_to_others(place: Place) -> None:
    job = SingletonJob.EVENT_STREAM
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=2, hosts=4)
        [first] = [peer for peer in fleet.peers if peer.parts.jobs.holds(job)]
        [second] = [peer for peer in fleet.peers if peer is not first]
        assert isinstance(first.parts.jobs, ClusterState)
        first.parts.jobs.set_possible(job, is_possible=False)
        await fleet.run_for(10 * SECOND)
        assert not first.parts.jobs.holds(job)
        assert second.parts.jobs.holds(job)


async def test_a_mass_failure_at_several_workers_is_notified_once(place: Place) -> None:
    health = HealthSettings(HealthRule(30 * SECOND, 60 * SECOND), sends_email=True, operator_email="ops@uplift.example")
    async with Fleet(place, delays_ms=[5 * SECOND] * 100, health_settings=health) as fleet:
        await fleet.start()
        account = await fleet.new_account(("coach@rapids.example",))
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=12, account=account)
        assert len(count_by_owner(fleet, seqs)) == 3
        fleet.sender.scripts.update({f"h{number}.test": lambda _: respond(503) for number in range(10)})
        await fleet.accept(1, account=account)
        began = [(NotificationKind.MASS_FAILURE_BEGAN, "ops@uplift.example")]
        await fleet.run_for(70 * SECOND)
        assert await kinds(fleet) == began
        assert all(peer.parts.status.outage is not None for peer in fleet.peers)
        # When another process takes over the evaluation, it uses the stored mass failure.
        [guard] = [peer for peer in fleet.peers if peer.parts.jobs.holds(SingletonJob.OUTAGE_GUARD)]
        await fleet.kill_peer(guard)
        fleet.switch_to(fleet.peers[0])
        await fleet.run_for(20 * SECOND)
        assert await kinds(fleet) == began
        assert all(peer.parts.status.outage is not None for peer in fleet.peers)
        # Let cache sync fail in the other processes, so that the mass failure ends before they know the changed health.
        for peer in fleet.peers:
            if not peer.parts.jobs.holds(SingletonJob.OUTAGE_GUARD):
                peer.cache_sync.sync = unavailable  # type: ignore[method-assign]
        for number in range(2, 10):
            del fleet.sender.scripts[f"h{number}.test"]
        await fleet.run_for(20 * SECOND)
        assert await kinds(fleet) == [*began, (NotificationKind.MASS_FAILURE_ENDED, "ops@uplift.example")]
        found = await fleet.database.read(lambda c: endpoints.find(c, seqs))
        assert {endpoint.state for endpoint in found} == {EndpointState.ENABLED}
        # The time of the mass failure does not count for any endpoint. The time after it counts, even for endpoints of
        # workers that did not evaluate the mass failure.
        await fleet.run_for(40 * SECOND)
        warned = [recipient for kind, recipient in await kinds(fleet) if kind is NotificationKind.ENDPOINT_WARNED]
        assert warned == ["coach@rapids.example"]
