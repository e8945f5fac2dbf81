"""Several processes on one database: each endpoint has one owner, also when processes start and stop."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from tests.delivery.fleet import Fleet, Peer
from tests.delivery.owner import Owner
from tests.delivery.watching import kinds
from tests.delivery.world import HOUR, SECOND, answer
from tests.engines import Place

from uplift_server.core.deliveries.health import HealthRule
from uplift_server.core.endpoint_settings import EndpointSettings
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.core.people.audit import SYSTEM, AuditEntry
from uplift_server.core.people.notifications import NotificationKind
from uplift_server.delivery.cluster.change_log import CLEANUP_EVERY_MS
from uplift_server.delivery.health.monitor import HealthSettings
from uplift_server.service.errors import Busy, Conflict
from uplift_server.store import change_log, endpoints
from uplift_server.store.commands import RESULT_KEPT_MS, Command, CommandKind, Result
from uplift_server.store.errors import Conflict as StoreConflict
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import EndpointState
from uplift_server.store.schema import deliveries
from uplift_server.store.schema_processes import commands as commands_table


async def fleet_with_endpoints(fleet: Fleet, peers: int, hosts: int, **settings: object) -> list[int]:
    """Start workers that agree on the owners of the endpoints."""
    for _ in range(peers):
        await fleet.start()
    await fleet.run_for(3 * SECOND)
    seqs = [(await fleet.endpoint(f"h{number}.test", **settings)).seq for number in range(hosts)]  # type: ignore[arg-type]
    await fleet.run_for(3 * SECOND)
    return seqs


def owner_and_other(fleet: Fleet, seq: int) -> tuple[Peer, Peer]:
    """Return the process that owns an endpoint, and another one."""
    owner = fleet.owner_of(seq)
    assert owner is not None
    return owner, next(peer for peer in fleet.peers if peer is not owner)


async def execute(fleet: Fleet, kind: CommandKind, event_seq: int, endpoint_seq: int) -> Result:
    """Cancel or resend a delivery like the service."""
    entry = AuditEntry(fleet.account.seq, fleet.clock.now, SYSTEM, f"delivery.{kind}", "dlv_", {})
    command = Command(kind, fleet.account.seq, endpoint_seq, entry, event_seq)
    executing = asyncio.ensure_future(fleet.parts.commands.execute(command))
    fleet.callers.add(executing)
    await fleet.stepping(asyncio.wait([executing]))
    fleet.callers.remove(executing)
    return executing.result()


async def stored_commands(fleet: Fleet) -> int:
    """Return the number of commands, including executed ones."""
    count = sa.select(sa.func.count()).select_from(commands_table)
    return int(await fleet.database.read(lambda c: c.scalar(count)) or 0)


async def away() -> None:
    raise Unavailable("the database is not seen")


def owners(fleet: Fleet, seqs: list[int]) -> Counter[int]:
    """Return the number of endpoints by process; 0: without an owner."""
    found = [fleet.owner_of(seq) for seq in seqs]
    return Counter(0 if peer is None else peer.process_id for peer in found)


async def test_endpoints_are_shared_and_each_event_is_delivered_once(place: Place) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=3, hosts=30)
        shares = owners(fleet, seqs)
        assert set(shares) == {peer.process_id for peer in fleet.peers}
        for peer in fleet.peers:
            fleet.at(peer)
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
        fleet.at(next(peer for peer in fleet.peers if not peer.owns(seqs[0])))
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
        fleet.at(api)
        await fleet.accept(3)
        await fleet.run_for(3 * SECOND)
        parts = [peer.parts for peer in fleet.peers]
        assert [each.counters.accepted for each in parts] == [0, 0, 3]
        delivered = [each.counters.ended[Status.DELIVERED] for each in parts]
        assert (sum(delivered), delivered[-1]) == (3 * 6, 0)
        slots = [each.status.own_load().in_flight_max for each in parts]
        assert slots[-1] == 0
        assert sum(slots) == api.parts.status.load().in_flight_max
        # A process without deliveries is not stopped.
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
        assert len(owners(fleet, seqs)) == 2
        await fleet.run_for(20 * SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 12 * 20}
        assert max(fleet.sender.in_flight_most.values()) == 3
        assert len(fleet.sender.sent) == 12 * 20


async def test_other_processes_attempt_the_deliveries_of_a_dead_process_within_seconds(place: Place) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=3, hosts=20)
        fleet.sender.latency_ms.update({f"h{number}.test": 60 * SECOND for number in range(20)})
        await fleet.accept(2)
        await fleet.run_for(100)
        assert len(fleet.sender.sent) == 40
        victim = fleet.peers[0]
        await fleet.kill_peer(victim)
        fleet.sender.latency_ms.clear()
        fleet.at(fleet.peers[0])
        await fleet.run_for(8 * SECOND)
        assert 0 not in owners(fleet, seqs)
        assert len(fleet.sender.sent) == 40 + victim.sender.sent
        assert await fleet.statuses() == {Status.DELIVERED: victim.sender.sent, Status.PENDING: 40 - victim.sender.sent}


async def test_a_stop_hands_over_all_endpoints_immediately(place: Place) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=10)
        leaving = fleet.peers[1]
        fleet.at(fleet.peers[0])
        await fleet.stop_peer(leaving)
        await fleet.run_for(200)
        assert set(owners(fleet, seqs)) == {fleet.peers[0].process_id}
        await fleet.accept(4)
        await fleet.run_for(SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 40}


async def test_a_process_without_heartbeats_stops_before_its_eviction(place: Place) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=10)
        cut_off = fleet.peers[1]
        cut_off.line.cut = True
        fleet.at(fleet.peers[0])
        await fleet.run_for(4500)
        sent = cut_off.sender.sent
        assert [peer.parts.status.heartbeat_age_ms() is None for peer in fleet.peers] == [True, False]
        # A process without notifications also receives none.
        assert [len(peer.parts.status.processes()) for peer in fleet.peers] == [2, 0]
        await fleet.accept(3)
        await fleet.run_for(10 * SECOND)
        assert cut_off.sender.sent == sent
        assert await fleet.statuses() == {Status.DELIVERED: 30}
        cut_off.line.cut = False
        await fleet.run_for(5 * SECOND)
        assert cut_off.parts.status.heartbeat_age_ms() is None
        assert len(owners(fleet, seqs)) == 2
        await fleet.accept(3)
        await fleet.run_for(2 * SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 60}
        assert cut_off.sender.sent > sent


async def test_late_leases_of_an_evicted_process_are_ended(place: Place) -> None:
    async with Fleet(place) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        owner = fleet.owner_of(seq)
        assert owner is not None
        other = next(peer for peer in fleet.peers if peer is not owner)
        await fleet.pause(seq)
        fleet.at(other)
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


@pytest.mark.parametrize("silent", [False, True])
async def test_a_pause_takes_effect_in_all_processes_within_a_second(place: Place, silent: bool) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        owner = fleet.owner_of(seqs[0])
        other = next(peer for peer in fleet.peers if peer is not owner)
        fleet.bus.silent = silent
        fleet.at(other)
        await fleet.pause(seqs[0])
        await fleet.run_for(SECOND)
        assert all(not peer.directory.endpoints[seqs[0]].takes_deliveries for peer in fleet.peers)
        for peer in fleet.peers:
            fleet.at(peer)
            await fleet.accept(2)
        await fleet.run_for(10 * SECOND)
        assert fleet.sender.sent == []
        assert await fleet.statuses() == {Status.HELD: 4}
        fleet.at(other)
        enabling = fleet.enable(seqs[0])
        await fleet.stepping(enabling)
        await fleet.run_for(3 * SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 4}


async def test_a_change_during_a_second_read_persists(place: Place) -> None:
    """The read is older than the change."""
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=1, hosts=0)
        [peer] = fleet.peers
        account = await fleet.new_account()
        renamed = replace(account, name="Renamed meanwhile")
        feed = peer.cache_sync
        database = feed._database

        class Slow:
            async def read_with_priority(self, body: Callable[..., object]) -> object:
                found = await database.read_with_priority(body)
                peer.directory.put_account(renamed)
                return found

        feed._database = Slow()  # type: ignore[assignment]
        await feed._read([("accounts", account.seq)])
        assert peer.directory.accounts[account.seq] == renamed


async def test_a_process_that_missed_deleted_changes_reloads_its_cache(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_ms = 2 * CLEANUP_EVERY_MS
    monkeypatch.setattr("uplift_server.delivery.cluster.change_log.RETENTION_MS", kept_ms)
    async with Fleet(place) as fleet:
        [deleted, changed] = await fleet_with_endpoints(fleet, peers=2, hosts=2)
        [on_duty] = [peer for peer in fleet.peers if peer.parts.jobs.holds(SingletonJob.RETENTION)]
        other = next(peer for peer in fleet.peers if peer is not on_duty)
        noted = await fleet.database.read(change_log.oldest_active_xid)
        fleet.at(on_duty)
        look = other.cache_sync.sync
        other.cache_sync.sync = away  # type: ignore[method-assign]
        await fleet.delete_endpoint(deleted)
        await fleet.pause(changed)
        created = (await fleet.endpoint("new.test")).seq
        account = await fleet.new_account()
        await fleet.run_for(kept_ms - CLEANUP_EVERY_MS // 2)
        assert (await fleet.database.read(lambda c: change_log.since(c, noted))).pruned_before == 0
        await fleet.run_for(2 * CLEANUP_EVERY_MS)
        changes = await fleet.database.read(lambda c: change_log.since(c, noted))
        assert changes.found == []
        assert changes.pruned_before > noted
        assert deleted in other.directory.endpoints
        other.cache_sync.sync = look  # type: ignore[method-assign]
        await fleet.run_for(2 * SECOND)
        for peer in fleet.peers:
            assert set(peer.directory.endpoints) == {changed, created}
            assert not peer.directory.endpoints[changed].takes_deliveries
            assert account.seq in peer.directory.accounts


async def test_transaction_numbers_that_go_back_reload_the_cache(place: Place) -> None:
    """A failover that lost the latest transactions reuses their numbers."""
    async with Fleet(place) as fleet:
        [paused] = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        here, other = fleet.peers
        other.cache_sync._next_xid = 1 << 60
        fleet.at(here)
        await fleet.pause(paused)
        await fleet.run_for(2 * SECOND)
        assert not other.directory.endpoints[paused].takes_deliveries


async def test_an_endpoint_deleted_through_another_process_gets_no_delivery(place: Place) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        fleet.sender.scripts["h0.test"] = lambda _: answer(500)
        await fleet.accept(3)
        await fleet.run_for(SECOND)
        fleet.at(next(peer for peer in fleet.peers if not peer.owns(seqs[0])))
        await fleet.delete_endpoint(seqs[0])
        await fleet.run_for(2 * SECOND)
        assert all(seqs[0] not in peer.directory.endpoints for peer in fleet.peers)
        assert await fleet.statuses() == {Status.CANCELLED: 3}


async def test_every_process_knows_the_health_of_an_endpoint(place: Place) -> None:
    async with Fleet(place, delays_ms=[SECOND] * 50, breaker_failures=4) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        fleet.sender.scripts["h0.test"] = lambda _: answer(500)
        await fleet.accept(1)
        await fleet.run_for(90 * SECOND)
        owner = fleet.owner_of(seqs[0])
        assert owner is not None
        other = next(peer for peer in fleet.peers if peer is not owner)
        known, told = (peer.directory.endpoints[seqs[0]].health for peer in (owner, other))
        assert known == told
        assert known.consecutive_failures > 8
        probe_at = owner.parts.status.next_probe_at(seqs[0])
        assert probe_at is not None
        assert other.parts.status.next_probe_at(seqs[0]) == pytest.approx(probe_at, abs=SECOND)
        assert other.parts.status.disable_at(seqs[0]) == owner.parts.status.disable_at(seqs[0])
        sent = len(fleet.sender.sent)
        fleet.at(other)
        await fleet.kill_peer(owner)
        await fleet.run_for(8 * SECOND)
        assert len(fleet.sender.sent) <= sent + 1  # its breaker is open here, too
        assert fleet.owner_of(seqs[0]) is other


@pytest.mark.parametrize("silent", [False, True])
async def test_a_leased_delivery_of_another_process_is_cancelled_and_resent(place: Place, silent: bool) -> None:
    async with Fleet(place) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1, max_in_flight=1)
        fleet.sender.latency_ms["h0.test"] = 9 * SECOND
        owner, other = owner_and_other(fleet, seq)
        fleet.at(owner)
        in_flight, waiting, resent = [each.seq for each in await fleet.accept(3)]
        fleet.at(other)
        assert other.parts.status.waiting_events(seq) is None
        assert set(owner.parts.status.waiting_events(seq) or ()) == {waiting, resent}
        fleet.bus.silent = silent
        began = fleet.clock.now
        with pytest.raises(StoreConflict, match="in flight"):
            await execute(fleet, CommandKind.CANCEL, in_flight, seq)
        assert (await execute(fleet, CommandKind.CANCEL, waiting, seq)).is_executed
        assert (await execute(fleet, CommandKind.RESEND, resent, seq)).is_executed
        assert fleet.clock.now - began <= 3 * 2 * SECOND
        rows = {row.event_seq: row for row in await fleet.deliveries()}
        assert Status(rows[waiting].status) is Status.CANCELLED
        assert Trigger(rows[resent].trigger) is Trigger.RESEND
        await fleet.run_for(30 * SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 2, Status.CANCELLED: 1}
        assert len(fleet.sender.sent) == 2


@pytest.mark.parametrize("silent", [False, True])
async def test_an_unleased_delivery_is_changed_immediately(place: Place, silent: bool) -> None:
    """The resend starts although the endpoint's circuit breaker is open."""
    async with Fleet(place, delays_ms=[HOUR, HOUR], breaker_failures=1) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        fleet.sender.scripts["h0.test"] = lambda _: answer(503, retry_after="3600")
        owner, other = owner_and_other(fleet, seq)
        fleet.at(owner)
        resent, cancelled = [each.seq for each in await fleet.accept(2)]
        await fleet.run_for(3 * SECOND)
        fleet.at(other)
        fleet.bus.silent = silent
        began = fleet.clock.now
        await execute(fleet, CommandKind.CANCEL, cancelled, seq)
        await execute(fleet, CommandKind.RESEND, resent, seq)
        assert fleet.clock.now == began
        assert (await fleet.statuses())[Status.CANCELLED] == 1
        await fleet.run_for(2 * SECOND)
        assert [row.number for row in await fleet.attempts() if row.event_seq == resent] == [1, 2]


@pytest.mark.parametrize("silent", [False, True])
async def test_an_endpoint_of_another_process_is_tested(place: Place, silent: bool) -> None:
    async with Fleet(place) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        owner, other = owner_and_other(fleet, seq)
        fleet.at(other)
        fleet.bus.silent = silent
        fleet.sender.latency_ms["h0.test"] = SECOND
        began = fleet.clock.now
        trial = await Owner(fleet).test(seq, key="once")
        assert fleet.clock.now - began <= 3 * SECOND
        assert trial.attempt is not None
        assert (trial.delivery.status, owner.sender.sent) == (Status.DELIVERED, 1)
        again = await Owner(fleet).test(seq, key="once")
        assert (again.delivery.event_id, again.repeated) == (trial.delivery.event_id, True)
        fleet.sender.latency_ms["h0.test"] = 20 * SECOND
        slow = await Owner(fleet).test(seq)
        assert (slow.delivery.status, slow.attempt) == (Status.PENDING, None)
        with pytest.raises(Conflict):
            await Owner(fleet).test(seq)


@pytest.mark.parametrize("kind", [CommandKind.CANCEL, CommandKind.RESEND])
async def test_a_command_is_executed_by_the_next_owner_if_its_process_dies(place: Place, kind: CommandKind) -> None:
    async with Fleet(place) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=3, hosts=1, max_in_flight=1)
        fleet.sender.scripts["h0.test"] = lambda _: None
        owner, other = owner_and_other(fleet, seq)
        fleet.at(owner)
        _, waiting, _ = [each.seq for each in await fleet.accept(3)]
        fleet.at(other)
        await fleet.kill_peer(owner)
        assert not (await execute(fleet, kind, waiting, seq)).is_executed
        await fleet.run_for(20 * SECOND)
        fleet.sender.scripts.clear()
        await fleet.run_for(60 * SECOND)
        [row] = [row for row in await fleet.deliveries() if row.event_seq == waiting]
        assert Status(row.status) is (Status.CANCELLED if kind is CommandKind.CANCEL else Status.DELIVERED)
        triggers = {Trigger(row.trigger) for row in await fleet.attempts() if row.event_seq == waiting}
        assert (Trigger.RESEND in triggers) is (kind is CommandKind.RESEND)
        await fleet.run_for(20 * SECOND)
        assert await stored_commands(fleet) == 0


@pytest.mark.parametrize("is_deleted", [False, True], ids=["enabled", "deleted"])
@pytest.mark.parametrize("kind", [CommandKind.CANCEL, CommandKind.RESEND])
async def test_a_stored_command_waits_for_a_worker_until_its_delivery_ends(
    place: Place, kind: CommandKind, is_deleted: bool
) -> None:
    async with Fleet(place) as fleet:
        worker, api = await fleet.start(ProcessRole.WORKER), await fleet.start(ProcessRole.API)
        await fleet.run_for(3 * SECOND)
        seq = (await fleet.endpoint("h0.test", max_in_flight=1)).seq
        await fleet.run_for(3 * SECOND)
        fleet.sender.scripts["h0.test"] = lambda _: None
        fleet.at(worker)
        _, waiting, _ = [each.seq for each in await fleet.accept(3)]
        fleet.at(api)
        await fleet.kill_peer(worker)
        assert not (await execute(fleet, kind, waiting, seq)).is_executed
        await fleet.run_for(2 * RESULT_KEPT_MS)
        assert await stored_commands(fleet) == 1
        if is_deleted:
            await fleet.delete_endpoint(seq)
        await fleet.start(ProcessRole.WORKER)
        await fleet.run_for(5 * SECOND)
        fleet.sender.scripts.clear()
        await fleet.run_for(60 * SECOND)
        [row] = [row for row in await fleet.deliveries() if row.event_seq == waiting]
        is_resent = kind is CommandKind.RESEND and not is_deleted
        assert Status(row.status) is (Status.DELIVERED if is_resent else Status.CANCELLED)
        triggers = {Trigger(row.trigger) for row in await fleet.attempts() if row.event_seq == waiting}
        assert (Trigger.RESEND in triggers) is is_resent
        await fleet.run_for(RESULT_KEPT_MS)
        assert await stored_commands(fleet) == 0


async def test_a_test_does_not_start_after_its_caller_disconnected(place: Place) -> None:
    async with Fleet(place) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=3, hosts=1)
        owner, other = owner_and_other(fleet, seq)
        fleet.at(other)
        await fleet.kill_peer(owner)
        with pytest.raises(Busy):
            await Owner(fleet).test(seq)
        await fleet.run_for(20 * SECOND)
        assert fleet.sender.sent == []
        assert (await Owner(fleet).test(seq)).delivery.status is Status.DELIVERED


async def test_commands_are_bounded_for_each_account(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uplift_server.store.commands.ACCOUNT_COMMANDS_WAITING_MAX", 1)
    async with Fleet(place) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1, max_in_flight=1)
        fleet.sender.scripts["h0.test"] = lambda _: None
        owner, other = owner_and_other(fleet, seq)
        fleet.at(owner)
        _, first, second = [each.seq for each in await fleet.accept(3)]
        fleet.at(other)
        assert (await execute(fleet, CommandKind.CANCEL, first, seq)).is_executed
        with pytest.raises(Unavailable):
            await execute(fleet, CommandKind.CANCEL, second, seq)


async def test_singleton_jobs_move_when_their_process_dies(place: Place) -> None:
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=2, hosts=4)

        def on_duty(duty: SingletonJob) -> list[int]:
            return [n for n, peer in enumerate(fleet.peers) if peer.parts.jobs.holds(duty)]

        assert all(len(on_duty(duty)) == 1 for duty in SingletonJob)
        [first] = on_duty(SingletonJob.STATISTICS)
        await fleet.kill_peer(fleet.peers[first])
        await fleet.run_for(SECOND)
        assert on_duty(SingletonJob.STATISTICS) == []
        await fleet.run_for(8 * SECOND)
        assert on_duty(SingletonJob.STATISTICS) == [0]


async def test_a_mass_failure_at_several_workers_is_notified_once(place: Place) -> None:
    watch = HealthSettings(HealthRule(30 * SECOND, 60 * SECOND), sends_email=True, operator_email="ops@uplift.example")
    async with Fleet(place, delays_ms=[5 * SECOND] * 100, watch=watch) as fleet:
        await fleet.start()
        account = await fleet.new_account(("coach@rapids.example",))
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=12, account=account)
        assert len(owners(fleet, seqs)) == 3
        fleet.sender.scripts.update({f"h{number}.test": lambda _: answer(503) for number in range(10)})
        await fleet.accept(1, account=account)
        began = [(NotificationKind.MASS_FAILURE_BEGAN, "ops@uplift.example")]
        await fleet.run_for(70 * SECOND)
        assert await kinds(fleet) == began
        assert all(peer.parts.status.outage is not None for peer in fleet.peers)
        # Later evaluations use the stored mass failure.
        [judge] = [peer for peer in fleet.peers if peer.parts.jobs.holds(SingletonJob.OUTAGE_GUARD)]
        await fleet.kill_peer(judge)
        fleet.at(fleet.peers[0])
        await fleet.run_for(20 * SECOND)
        assert await kinds(fleet) == began
        assert all(peer.parts.status.outage is not None for peer in fleet.peers)
        # The end of the mass failure is announced before the changed health is known everywhere.
        for peer in fleet.peers:
            if not peer.parts.jobs.holds(SingletonJob.OUTAGE_GUARD):
                peer.cache_sync.sync = away  # type: ignore[method-assign]
        for number in range(2, 10):
            del fleet.sender.scripts[f"h{number}.test"]
        await fleet.run_for(20 * SECOND)
        assert await kinds(fleet) == [*began, (NotificationKind.MASS_FAILURE_ENDED, "ops@uplift.example")]
        found = await fleet.database.read(lambda c: endpoints.find(c, seqs))
        assert {endpoint.state for endpoint in found} == {EndpointState.ENABLED}
        # This period does not count for any endpoint. Later time counts, also for endpoints of workers that did not
        # evaluate.
        await fleet.run_for(40 * SECOND)
        warned = [recipient for kind, recipient in await kinds(fleet) if kind is NotificationKind.ENDPOINT_WARNED]
        assert warned == 2 * ["coach@rapids.example"]


async def test_limits_changed_through_one_process_apply_to_all(place: Place) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        owner = fleet.owner_of(seqs[0])
        assert owner is not None
        await fleet.database.write(
            lambda c: endpoints.update(
                c,
                None,
                owner.directory.endpoints[seqs[0]].record.id,
                lambda record: replace(record, settings=EndpointSettings(max_in_flight=2), updated_at=fleet.clock.now),
            )
        )
        await fleet.run_for(SECOND)
        assert owner.directory.endpoints[seqs[0]].record.settings.max_in_flight == 2
        assert owner.directory.endpoints[seqs[0]].record.state is EndpointState.ENABLED
        fleet.sender.latency_ms["h0.test"] = 100
        fleet.at(owner)
        await fleet.accept(9)
        await fleet.run_for(3 * SECOND)
        assert fleet.sender.in_flight_most["h0.test"] == 2
