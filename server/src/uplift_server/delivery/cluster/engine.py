"""The engine of one of several processes: what is its own it does as ever, for the rest it asks others.

Without other processes on its database an engine is `delivery.engine.Engine`, and nothing of this runs.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog

from uplift_server.core.limits import DRAIN_MS_MAX
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.core.scheduling.circuit_breaker import restored
from uplift_server.delivery.clock import Clock, DatabaseTime
from uplift_server.delivery.cluster.cache_sync import CacheSync
from uplift_server.delivery.cluster.change_log import ChangeLogCleanup
from uplift_server.delivery.cluster.commands import ClusteredCommands
from uplift_server.delivery.cluster.encryption_upgrade import EncryptionUpgrade
from uplift_server.delivery.cluster.listeners import Listeners
from uplift_server.delivery.cluster.membership import Membership
from uplift_server.delivery.cluster.notifier import Notifier
from uplift_server.delivery.cluster.shards import Ownership
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.engine import Engine, EngineSettings, SenderLife
from uplift_server.delivery.scheduling.lanes import Load
from uplift_server.observe.attempt_log import AttemptLine
from uplift_server.store import health, processes
from uplift_server.store.contract import Database, MessageBus, Transaction
from uplift_server.store.errors import Rejected, StoreError, Unavailable
from uplift_server.store.processes import Process
from uplift_server.store.replays import Replay
from uplift_server.store.schema_version import UnknownSchema

SEEN_WITHIN_MS: Final = 1_000
"""Within what time every process knows of a change."""
LEAVE_WITHIN_S: Final = 2.0
JUDGED_EVERY_MS: Final = 3_000
UNAVAILABLE_WAIT_MS: Final = 500
_log = structlog.get_logger()


class SharedEngine(Engine):
    """See the module. `time` is what the clock goes by."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        sender: SenderLife,
        clock: Clock,
        settings: EngineSettings,
        on_lines: Callable[[Sequence[AttemptLine]], None],
        *,
        line: MessageBus,
        time: DatabaseTime,
        role: ProcessRole,
        read_time: Callable[[Transaction], float] = processes.database_now,
    ) -> None:
        super().__init__(database, cache, sender, clock, settings, on_lines)
        self._line = line
        self._role = role
        self._post = Notifier(line, clock)
        self.membership = Membership(
            database, line, self._post, clock, time, role, load=self.lanes.load, read_time=read_time
        )
        self._ownership = Ownership(database, cache, clock, self.membership, self._post, self)
        self._feed = CacheSync(database, cache, clock, self)
        self._forgetting = ChangeLogCleanup(database, clock)
        self._encryption = EncryptionUpgrade(database, cache, clock)
        self._clustered = ClusteredCommands(
            database,
            cache,
            clock,
            self._post,
            self.local_commands,
            sends=self.sends,
            look_for_changes=self._feed.look_soon,
        )
        self.commands = self._clustered
        self._listeners = Listeners(self.relay, self.acceptor, self._post, clock)
        self._post.on_due = self._due_here
        self._post.on_changed = self._feed.look_soon
        self._post.on_moved = self.membership.hurry
        self.membership.on_forgotten = self._trust_no_more
        self.membership.on_renumbered = self._begin_anew
        self.membership.on_beat = self._see
        self._ownership.on_moved = self.due.scan
        self.acceptor.on_foreign = self._post.tell_due
        self.dispatcher.on_foreign = self._post.tell_due
        for duty, loop in (
            (SingletonJob.STATISTICS, self.numbers),
            (SingletonJob.SECRET_EXPIRY, self._overlaps),
            (SingletonJob.RETENTION, self._retention),
            (SingletonJob.RETENTION, self._forgetting),
            (SingletonJob.OUTAGE_GUARD, self._watch.mass_failures),
        ):
            loop.on_duty = self.duty(duty)
        self._watch.shares = True
        self._attempts.on_well_elsewhere = self._note_success
        self._successes: dict[int, int] = {}
        """By endpoint that is another process's by now, when it was attempted well here (Unix ms): not stored yet."""
        self._success_task: asyncio.Task[None] | None = None

    def duty(self, duty: SingletonJob) -> Callable[[], bool]:
        """See Engine."""
        return lambda: self.membership.has_duty(duty)

    async def join(self) -> None:
        """See Engine."""
        await self.membership.join()
        self._speak_as(self.membership.number)
        await self._feed.begin()

    async def start(self, *, dispatch: bool = True) -> None:
        """See Engine. What is to be delivered comes as soon as the others know of this process."""
        delivers = dispatch and self._role.delivers
        await super().start(dispatch=delivers)
        if delivers:
            self._begin("commands", self._clustered.run(self._stopping))
            self._begin("forgetting", self._forgetting.run(self._stopping))
        else:
            self._begin("relay", self.relay.run(self._stopping))
            self._begin("mass failures", self._follow_mass_failures())
        self.membership.delivers = delivers
        with suppress(Unavailable):
            # Whoever asks from now on is told who else delivers. Where it cannot be heard of now, it is later.
            await self.membership.beat()
        self._begin("heartbeat", self.membership.run(self._stopping))
        self._begin("burial", self.membership.end_leases(self._stopping))
        self._begin("ownership", self._ownership.run(self._stopping))
        self._begin("feed", self._feed.run(self._stopping))
        if self._cache.cipher.accepts_unbound:
            self._begin("encryption upgrade", self._encryption.run(self._stopping))

    async def drain(self, within_ms: int = DRAIN_MS_MAX) -> None:
        """See Engine. Its endpoints are others' at once; what it has in flight counts against their caps meanwhile."""
        until = self._clock.now_ms() + within_ms
        joined = self.membership.number != 0
        if joined:
            self.membership.delivers = False
            self._ownership.drop_all()
            await self._at_most(self._ownership.settle_down())
            await self._at_most(self.membership.beat())
        await super().drain(max(0, until - self._clock.now_ms()))
        if self._success_task is not None:
            self._success_task.cancel()
        await self._at_most(self._write_successes())
        if joined:
            await self._at_most(self.membership.leave())
        await self._at_most(self._post.close())
        await self._line.close()

    # What happens to this process among the others.

    async def let_go(self, endpoint_seqs: Sequence[int]) -> None:
        """See `ownership.Keeping`."""
        for endpoint_seq in endpoint_seqs:
            for delivery in self.lanes.empty(endpoint_seq):
                self.dispatcher.give_back(delivery)
        await self.dispatcher.release_returned()

    async def prepare(self, endpoint_seqs: Sequence[int]) -> None:
        """See `ownership.Keeping`."""
        await self.replays.take_over(frozenset(endpoint_seqs))

    def take_up(self, endpoint: LiveEndpoint, elsewhere: int) -> None:
        """See `ownership.Keeping`."""
        self.lanes.take_over(endpoint, elsewhere)
        self.due.note_backlog(endpoint.seq)
        self.replays.look_at(endpoint.seq)
        self._held.look_at(endpoint.seq)
        self._watch.take_up(endpoint)

    def is_well_again(self, endpoint: LiveEndpoint) -> None:
        """See `feed.Acting`."""
        self.lanes.start_afresh(endpoint)
        self._watch.note(endpoint)

    def _note_success(self, endpoint: LiveEndpoint, at: int) -> None:
        self._successes[endpoint.seq] = at
        if self._success_task is None or self._success_task.done():
            self._success_task = asyncio.create_task(self._tell_successes())

    async def _tell_successes(self) -> None:
        while self._successes and not self._stopping.is_set():
            try:
                await self._write_successes()
            except Unavailable:
                await self._clock.wait(self._stopping, UNAVAILABLE_WAIT_MS)

    async def _write_successes(self) -> None:
        # In the order in which settlements lock endpoints.
        some = sorted(self._successes.items())

        def write(connection: Transaction) -> None:
            for endpoint_seq, at in some:
                health.note_success(connection, endpoint_seq, at)

        if some:
            await self._database.write(write)
            self._successes = {each: at for each, at in self._successes.items() if (each, at) not in some}

    def _see(self, living: Sequence[Process]) -> None:
        self._ownership.see(living)
        self._listeners.tell_again()

    def _trust_no_more(self) -> None:
        self.lanes.trusted_until = 0

    def _begin_anew(self) -> None:
        self._speak_as(self.membership.number)
        self._ownership.drop_all()

    def _speak_as(self, number: int) -> None:
        self.become(number)
        self.settler.speak_as(number)
        self._watch.transitions.by = self._watch.mass_failures.by = number

    def _due_here(self, endpoint_seqs: Iterable[int]) -> None:
        """Another process has stored something for these."""
        for endpoint_seq in endpoint_seqs:
            if self._cache.owns(endpoint_seq):
                super().note_due(endpoint_seq)

    async def _follow_mass_failures(self) -> None:
        while not self._stopping.is_set():
            await self._clock.wait(self._stopping, JUDGED_EVERY_MS)
            try:
                await self._watch.mass_failures.load()
            except Unavailable:
                continue

    async def _at_most(self, work: Coroutine[Any, Any, None]) -> None:
        """Give the store a while. What others are not told they find out by themselves."""
        try:
            async with asyncio.timeout(LEAVE_WITHIN_S):
                await work
        except (StoreError, Rejected, UnknownSchema, TimeoutError) as error:
            _log.warning("other processes were not told of the stop", cause=str(error) or "no answer")

    # What may be asked of an engine about any endpoint.

    def note_due(self, endpoint_seq: int) -> None:
        """See Engine."""
        if self._cache.owns(endpoint_seq):
            super().note_due(endpoint_seq)
        else:
            self._post.tell_due([endpoint_seq])

    async def finish_holding(self, endpoint_seq: int, within_ms: int) -> bool:
        """See Engine. Another process's memory is empty once it knows that the endpoint is off."""
        endpoint = self._cache.endpoints.get(endpoint_seq)
        if endpoint is None or endpoint.owned:
            return await super().finish_holding(endpoint_seq, within_ms)
        seen_after_ms = max(0, (endpoint.record.state_since or 0) + SEEN_WITHIN_MS - self._clock.now_ms())
        if seen_after_ms > within_ms:
            return False
        await self._clock.wait(asyncio.Event(), seen_after_ms)
        return await super().finish_holding(endpoint_seq, within_ms - seen_after_ms)

    def waiting_events(self, endpoint_seq: int) -> Collection[int] | None:
        """See Engine."""
        return super().waiting_events(endpoint_seq) if self._cache.owns(endpoint_seq) else None

    def replay_changed(self, replay: Replay) -> None:
        """See Engine."""
        if self._role.delivers:
            super().replay_changed(replay)

    def next_probe_at(self, endpoint_seq: int) -> int | None:
        """See Engine. Of another process's endpoint as its stored health tells it."""
        endpoint = self._cache.endpoints.get(endpoint_seq)
        if endpoint is None or endpoint.owned:
            return super().next_probe_at(endpoint_seq)
        return self._stored_probe_at(endpoint)

    def own_load(self) -> Load:
        """See Engine. One that only takes events has no slots, and nothing that could be stopped."""
        own = super().own_load()
        return own if self._role.delivers else own._replace(in_flight_max=0, stopped=False)

    def sends(self) -> bool:
        """See Engine. Of others it knows as of their latest heartbeats."""
        others = (each for each in self.membership.living if each.seq != self.membership.number)
        return (self._role.delivers and super().sends()) or any(each.delivers for each in others)

    def unheard_ms(self) -> int | None:
        """See Engine."""
        return self.membership.unheard_ms()

    def load(self) -> Load:
        """How much all processes have in hand, as of their latest heartbeats."""
        own = super().load()
        others = [each for each in self.membership.living if each.seq != self.membership.number]
        probes = dict(own.probes)
        for endpoint in self._cache.endpoints.values():
            if not endpoint.owned and (at := self._stored_probe_at(endpoint)) is not None:
                probes[endpoint.seq] = at
        return Load(
            own.in_flight + sum(each.in_flight for each in others),
            (own.in_flight_max if self._role.delivers else 0) + sum(each.in_flight_max for each in others),
            own.waiting + sum(each.waiting for each in others),
            probes,
            not self.sends(),
        )

    def processes(self) -> Sequence[Process]:
        """See Engine. As of the latest heartbeat; who lives after a late one, nobody here knows."""
        return self.membership.living if self.membership.unheard_ms() is None else ()

    def _stored_probe_at(self, endpoint: LiveEndpoint) -> int | None:
        if not endpoint.takes_deliveries:
            return None
        return restored(endpoint.health, self._settings.breaker).probe_at
