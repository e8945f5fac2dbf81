"""Changes through one process take effect in the others, by cache sync and by commands."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from msgspec import structs
from structlog.testing import capture_logs
from tests.delivery.fleet import Fleet, fleet_with_endpoints, owner_and_other, unavailable
from tests.delivery.owner import Owner
from tests.delivery.world import HOUR, SECOND, START, respond
from tests.engines import Place

from uplift_server.core.deliveries.causes import cause_of
from uplift_server.core.endpoint_settings import EndpointSettings
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.core.people.audit import SYSTEM, AuditEntry
from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.delivery.cluster.cache_sync import REREAD_AFTER_MS
from uplift_server.delivery.cluster.change_log import CLEANUP_EVERY_MS
from uplift_server.service.errors import Busy, Conflict
from uplift_server.store import accounts, change_log, endpoints, keys, service_keys
from uplift_server.store.commands import RESULT_KEPT_MS, Command, CommandKind, Result
from uplift_server.store.contract import Transaction
from uplift_server.store.encryption import Cipher
from uplift_server.store.errors import Conflict as StoreConflict
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import ApiKey, DisabledReason, EndpointState, ServiceKey
from uplift_server.store.schema import endpoints as endpoints_table
from uplift_server.store.schema_processes import commands as commands_table


async def execute(fleet: Fleet, kind: CommandKind, event_seq: int, endpoint_seq: int) -> Result:
    """Cancel or resend a delivery as the service does."""
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


@pytest.mark.parametrize("silent", [False, True])
async def test_a_pause_takes_effect_in_all_processes_within_a_second(place: Place, silent: bool) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        owner = fleet.owner_of(seqs[0])
        other = next(peer for peer in fleet.peers if peer is not owner)
        fleet.bus.silent = silent
        fleet.switch_to(other)
        await fleet.pause(seqs[0])
        await fleet.run_for(SECOND)
        assert all(not peer.cache.endpoints[seqs[0]].takes_deliveries for peer in fleet.peers)
        for peer in fleet.peers:
            fleet.switch_to(peer)
            await fleet.accept(2)
        await fleet.run_for(10 * SECOND)
        assert fleet.sender.sent == []
        assert await fleet.statuses() == {Status.HELD: 4}
        fleet.switch_to(other)
        enabling = fleet.enable(seqs[0])
        await fleet.stepping(enabling)
        await fleet.run_for(3 * SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 4}


@pytest.mark.parametrize("silent", [False, True])
async def test_an_endpoint_enabled_elsewhere_recovers_despite_an_update(place: Place, silent: bool) -> None:
    """The owner reads the enabled endpoint for an update before it learns from cache sync that it was enabled."""
    async with Fleet(place) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        owner, other = owner_and_other(fleet, seq)
        fleet.bus.silent = silent
        failing = owner.cache.endpoints[seq].health._replace(consecutive_failures=20, failing_since=START - 240 * HOUR)
        owner.cache.endpoints[seq].health = failing
        owner.parts.settler.keep_health(owner.cache.endpoints[seq])
        fleet.switch_to(owner)
        await fleet.deactivate(seq, EndpointState.DISABLED, DisabledReason.FAILING)
        await fleet.accept(2)
        await fleet.run_for(3 * SECOND)
        assert await fleet.statuses() == {Status.HELD: 2}

        fleet.switch_to(other)
        await fleet.stepping(fleet.enable(seq))
        [record] = await fleet.database.read(lambda c: endpoints.find(c, [seq]))
        owner.parts.changes.apply(record)

        assert owner.cache.endpoints[seq].health.failing_since is None
        await fleet.run_for(5 * SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 2}
        assert owner.cache.endpoints[seq].takes_deliveries


async def test_a_uid_moves_in_all_processes_within_a_second(place: Place) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=2)
        other = fleet.peers[1]
        records = [await fleet.new_account() for _ in range(2)]
        await fleet.run_for(SECOND)

        async def name(number: int, uid: str | None) -> None:
            endpoint_id = other.cache.endpoints[seqs[number]].record.id
            await fleet.database.write(
                lambda c: accounts.update(c, records[number].id, lambda stored: replace(stored, uid=uid))
            )
            await fleet.database.write(
                lambda c: endpoints.update(c, None, endpoint_id, lambda stored: structs.replace(stored, uid=uid))
            )

        await name(0, "mine")
        await fleet.run_for(SECOND)
        for peer in fleet.peers:
            found = peer.cache.find_endpoint(fleet.account.seq, "mine")
            assert found is peer.cache.endpoints[seqs[0]]
            assert peer.cache.find_account("mine") is peer.cache.accounts[records[0].seq]
        await name(0, None)
        await name(1, "mine")
        await fleet.run_for(SECOND)
        for peer in fleet.peers:
            assert peer.cache.find_endpoint(fleet.account.seq, "mine") is peer.cache.endpoints[seqs[1]]
            assert peer.cache.find_account("mine") is peer.cache.accounts[records[1].seq]


async def test_a_change_during_a_second_read_persists(place: Place) -> None:
    """The cache keeps the change, because the read is older."""
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, peers=1, hosts=0)
        [peer] = fleet.peers
        account = await fleet.new_account()
        renamed = replace(account, name="Renamed meanwhile")
        cache_sync = peer.cache_sync
        database = cache_sync._database

        class ChangesDuringRead:
            async def read_with_priority(self, body: Callable[..., object]) -> object:
                found = await database.read_with_priority(body)
                peer.cache.put_account(renamed)
                return found

        cache_sync._database = ChangesDuringRead()  # type: ignore[assignment]
        await cache_sync._read([("accounts", account.seq)])
        assert peer.cache.accounts[account.seq] == renamed


async def test_a_process_that_missed_deleted_changes_reloads_its_cache(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_ms = 2 * CLEANUP_EVERY_MS
    monkeypatch.setattr("uplift_server.delivery.cluster.change_log.RETENTION_MS", kept_ms)
    async with Fleet(place) as fleet:
        [deleted, changed] = await fleet_with_endpoints(fleet, peers=2, hosts=2)
        [cleaner] = [peer for peer in fleet.peers if peer.parts.jobs.holds(SingletonJob.RETENTION)]
        other = next(peer for peer in fleet.peers if peer is not cleaner)
        xid = await fleet.database.read(change_log.oldest_active_xid)
        fleet.switch_to(cleaner)
        sync = other.cache_sync.sync
        other.cache_sync.sync = unavailable  # type: ignore[method-assign]
        await fleet.delete_endpoint(deleted)
        await fleet.pause(changed)
        created = (await fleet.endpoint("new.test")).seq
        account = await fleet.new_account()
        await fleet.run_for(kept_ms - CLEANUP_EVERY_MS // 2)
        assert (await fleet.database.read(lambda c: change_log.since(c, xid))).pruned_before == 0
        await fleet.run_for(2 * CLEANUP_EVERY_MS)
        changes = await fleet.database.read(lambda c: change_log.since(c, xid))
        assert changes.found == []
        assert changes.pruned_before > xid
        assert deleted in other.cache.endpoints
        other.cache_sync.sync = sync  # type: ignore[method-assign]
        await fleet.run_for(2 * SECOND)
        for peer in fleet.peers:
            assert set(peer.cache.endpoints) == {changed, created}
            assert not peer.cache.endpoints[changed].takes_deliveries
            assert account.seq in peer.cache.accounts


async def test_cleanup_of_the_change_log_keeps_newer_changes(place: Place) -> None:
    """After a cleanup has emptied the change log, the next change still gets a new transaction ID."""
    async with Fleet(place) as fleet:
        [paused] = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        first, other = fleet.peers
        xid = await fleet.database.read(change_log.oldest_active_xid)
        await fleet.database.write(lambda c: change_log.prune(c, xid, limit=100))
        await fleet.run_for(2 * REREAD_AFTER_MS)
        fleet.bus.silent = True
        fleet.switch_to(first)
        await fleet.pause(paused)
        await fleet.database.write(lambda c: change_log.prune(c, xid, limit=100))
        assert other.cache.endpoints[paused].takes_deliveries
        await fleet.run_for(SECOND)
        assert not other.cache.endpoints[paused].takes_deliveries


async def test_decreasing_transaction_numbers_reload_the_cache(place: Place) -> None:
    """After a failover that lost the latest transactions, their IDs are used again."""
    async with Fleet(place) as fleet:
        [paused] = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        first, other = fleet.peers
        other.cache_sync._next_xid = 1 << 60
        fleet.switch_to(first)
        await fleet.pause(paused)
        await fleet.run_for(2 * SECOND)
        assert not other.cache.endpoints[paused].takes_deliveries


async def test_keys_changed_through_another_process_are_synced(place: Place) -> None:
    """Covers creation, a new expiry and revocation of account keys and service keys, and a reload of the cache."""
    async with Fleet(place) as fleet:
        await fleet_with_endpoints(fleet, 2, 1)
        account_seq, scopes = fleet.account.seq, frozenset({"listen"})

        def create(connection: Transaction) -> tuple[ApiKey, ServiceKey]:
            return keys.create(
                connection, key_id=b"k" * 16, account_seq=account_seq, name="k", digest=b"k" * 32, ends_with="",
                scopes=scopes, now=0,
            ), service_keys.create(
                connection, key_id=b"s" * 16, name="s", digest=b"s" * 32, ends_with="", scopes=scopes, expires_at=None,
                now=0,
            )  # fmt: skip

        key, service_key = await fleet.database.write(create)
        await fleet.run_for(SECOND)
        for peer in fleet.peers:
            assert peer.cache.keys == {key.digest: key}
            assert peer.cache.service_keys == {service_key.digest: service_key}
            assert peer.cache.key_expiries == {}

        def expire(connection: Transaction) -> None:
            keys.update(connection, account_seq, key.id, lambda stored: replace(stored, expires_at=7))
            service_keys.update(connection, service_key.id, lambda stored: replace(stored, expires_at=8))

        await fleet.database.write(expire)
        await fleet.run_for(SECOND)
        for peer in fleet.peers:
            assert peer.cache.keys[key.digest].expires_at == 7
            assert peer.cache.service_keys[service_key.digest].expires_at == 8
            assert peer.cache.key_expiries == {key.id: 7, service_key.id: 8}

        def revoke(connection: Transaction) -> None:
            keys.revoke(connection, account_seq, key.id, now=9)
            service_keys.revoke(connection, service_key.id, now=9)

        await fleet.database.write(revoke)
        first, second = fleet.peers
        await first.cache_sync._read_all()
        await fleet.run_for(SECOND)
        for peer in (first, second):
            assert (peer.cache.keys, peer.cache.service_keys, peer.cache.key_expiries) == ({}, {}, {})


async def test_an_endpoint_that_cannot_be_decrypted_keeps_its_earlier_settings(place: Place) -> None:
    async with Fleet(place) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        before = fleet.cache.endpoints[seq]
        secret = Cipher(b"x" * 32).encrypt("whsec_c2VjcmV0", before.record.id, "secret")
        change = sa.update(endpoints_table).values(secret=secret, url="https://other.example", updated_at=1 << 40)
        with capture_logs() as lines:
            await fleet.database.write(lambda c: c.execute(change))
            await fleet.run_for(SECOND)
        assert {(each["endpoint"], each["cause"]) for each in lines if each["log_level"] == "error"} == {
            (before.id_text, "encrypted with another key")
        }
        assert all(peer.cache.endpoints[seq].record == before.record for peer in fleet.peers)


async def test_an_endpoint_deleted_through_another_process_gets_no_delivery(place: Place) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        fleet.sender.scripts["h0.test"] = lambda _: respond(500)
        await fleet.accept(3)
        await fleet.run_for(SECOND)
        fleet.switch_to(next(peer for peer in fleet.peers if not peer.owns(seqs[0])))
        await fleet.delete_endpoint(seqs[0])
        await fleet.run_for(2 * SECOND)
        assert all(seqs[0] not in peer.cache.endpoints for peer in fleet.peers)
        assert await fleet.statuses() == {Status.CANCELLED: 3}


async def test_endpoint_health_is_synced_to_every_process(place: Place) -> None:
    async with Fleet(place, delays_ms=[SECOND] * 50, breaker_failures=4) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        fleet.sender.scripts["h0.test"] = lambda _: respond(500)
        await fleet.accept(1)
        await fleet.run_for(90 * SECOND)
        owner = fleet.owner_of(seqs[0])
        assert owner is not None
        other = next(peer for peer in fleet.peers if peer is not owner)
        health, other_health = (peer.cache.endpoints[seqs[0]].health for peer in (owner, other))
        assert health == other_health
        cause = cause_of(other_health)
        assert cause is not None
        assert cause.code == "status_500"
        assert health.consecutive_failures > 8
        probe_at = owner.parts.status.next_probe_at(seqs[0])
        assert probe_at is not None
        assert other.parts.status.next_probe_at(seqs[0]) == probe_at
        assert other.parts.status.held_up_by(seqs[0]) is HeldUpBy.PROBE
        assert other.parts.status.disable_at(seqs[0]) == owner.parts.status.disable_at(seqs[0])
        sent = len(fleet.sender.sent)
        fleet.switch_to(other)
        await fleet.kill_peer(owner)
        await fleet.run_for(8 * SECOND)
        assert len(fleet.sender.sent) <= sent + 1  # the circuit breaker of the new owner is open, too
        assert fleet.owner_of(seqs[0]) is other


@pytest.mark.parametrize("silent", [False, True])
async def test_a_leased_delivery_of_another_process_is_cancelled_and_resent(place: Place, silent: bool) -> None:
    async with Fleet(place) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1, max_in_flight=1)
        fleet.sender.latency_ms["h0.test"] = 9 * SECOND
        owner, other = owner_and_other(fleet, seq)
        fleet.switch_to(owner)
        in_flight, waiting, resent = [each.seq for each in await fleet.accept(3)]
        fleet.switch_to(other)
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
        fleet.sender.scripts["h0.test"] = lambda _: respond(503, retry_after="3600")
        owner, other = owner_and_other(fleet, seq)
        fleet.switch_to(owner)
        resent, cancelled = [each.seq for each in await fleet.accept(2)]
        await fleet.run_for(3 * SECOND)
        fleet.switch_to(other)
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
        fleet.switch_to(other)
        fleet.bus.silent = silent
        fleet.sender.latency_ms["h0.test"] = SECOND
        began = fleet.clock.now
        result = await Owner(fleet).test(seq, key="once")
        assert fleet.clock.now - began <= 3 * SECOND
        assert result.attempt is not None
        assert (result.delivery.status, owner.sender.sent) == (Status.DELIVERED, 1)
        again = await Owner(fleet).test(seq, key="once")
        assert (again.delivery.event_id, again.repeated) == (result.delivery.event_id, True)
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
        fleet.switch_to(owner)
        _, waiting, _ = [each.seq for each in await fleet.accept(3)]
        fleet.switch_to(other)
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
        fleet.switch_to(worker)
        _, waiting, _ = [each.seq for each in await fleet.accept(3)]
        fleet.switch_to(api)
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
        fleet.switch_to(other)
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
        fleet.switch_to(owner)
        _, first, second = [each.seq for each in await fleet.accept(3)]
        fleet.switch_to(other)
        assert (await execute(fleet, CommandKind.CANCEL, first, seq)).is_executed
        with pytest.raises(Unavailable):
            await execute(fleet, CommandKind.CANCEL, second, seq)


async def test_limits_changed_through_one_process_apply_to_all(place: Place) -> None:
    async with Fleet(place) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        owner = fleet.owner_of(seqs[0])
        assert owner is not None
        await fleet.database.write(
            lambda c: endpoints.update(
                c,
                None,
                owner.cache.endpoints[seqs[0]].record.id,
                lambda record: structs.replace(
                    record, settings=EndpointSettings(max_in_flight=2), updated_at=fleet.clock.now
                ),
            )
        )
        await fleet.run_for(SECOND)
        assert owner.cache.endpoints[seqs[0]].record.settings.max_in_flight == 2
        assert owner.cache.endpoints[seqs[0]].record.state is EndpointState.ENABLED
        fleet.sender.latency_ms["h0.test"] = 100
        fleet.switch_to(owner)
        await fleet.accept(9)
        await fleet.run_for(3 * SECOND)
        assert fleet.sender.in_flight_most["h0.test"] == 2
