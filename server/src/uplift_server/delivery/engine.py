"""The engine: its parts wired together, its loops, and how it starts and drains."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from uplift_server.core.limits import DRAIN_MS_MAX
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.core.scheduling.circuit_breaker import BreakerRule
from uplift_server.core.scheduling.retry_schedule import RetrySchedule
from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.delivery.clock import Clock
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.health.monitor import HealthMonitor, HealthSettings
from uplift_server.delivery.health.outage_guard import Outage
from uplift_server.delivery.ingest import Acceptor
from uplift_server.delivery.listening.relay import Relay
from uplift_server.delivery.maintenance.retention import Retention
from uplift_server.delivery.maintenance.secret_expiry import SecretExpiry
from uplift_server.delivery.maintenance.statistics import StatisticsUpdater
from uplift_server.delivery.replays.jobs import ReplayJobs
from uplift_server.delivery.scheduling.dispatcher import Dispatcher
from uplift_server.delivery.scheduling.due import DueEndpoints
from uplift_server.delivery.scheduling.held import HeldDeliveries
from uplift_server.delivery.scheduling.lanes import DeliveryLanes, Load
from uplift_server.delivery.sending.attempts import Attempts, Sending
from uplift_server.delivery.sending.commands import Commands, LocalCommands
from uplift_server.delivery.sending.settler import Settler
from uplift_server.delivery.sending.test_deliveries import RunningTests
from uplift_server.observe.attempt_log import AttemptLine
from uplift_server.observe.counters import EngineCounters
from uplift_server.store.contract import Database
from uplift_server.store.errors import Rejected, StoreError
from uplift_server.store.processes import Process
from uplift_server.store.replays import Replay
from uplift_server.store.schema_version import UnknownSchema

RECLAIM_BATCH: Final = 1000
LOOK_EVERY_SCANS: Final = 5
"""How many times as often due deliveries are searched for as endpoints that hold what they should not."""
STORE_SECONDS: Final = 2.5
"""How long a stop waits for each answer of the store: more than it waits for a foreign lock."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What an operator may choose; times in ms."""

    schedule: RetrySchedule
    breaker: BreakerRule
    attempt_timeout_ms: int
    lease_ms: int
    in_flight_max: int
    endpoint_in_flight_max: int
    retention_ms: int
    watch: HealthSettings
    release_rate_per_second: int = 50
    """How fast an endpoint gets what it held."""
    scan_every_ms: int = 1000
    """How often the database is searched for due deliveries, besides at the instants known to come."""
    numbers_every_ms: int = 1000
    """How often what was added is counted."""
    tick_ms: int = 100
    """How often callers who wait too long are looked for."""
    owner: int = 1
    """This process among those that lease from the database; not 0."""


class SenderLife(Sending, Protocol):
    """A sender with its beginning and end."""

    async def start(self) -> None:
        """Get ready."""

    async def close(self) -> None:
        """Abort what is in flight, telling each as failed."""


class Engine:
    """Everything between an accepted event and a settled delivery."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        sender: SenderLife,
        clock: Clock,
        settings: EngineSettings,
        on_lines: Callable[[Sequence[AttemptLine]], None],
    ) -> None:
        self._database = database
        self._cache = cache
        self._sender = sender
        self._clock = clock
        self._settings = settings
        self.measures = EngineCounters()
        self.owner = settings.owner
        self.due = DueEndpoints()
        self.lanes = DeliveryLanes(
            clock,
            self.due,
            in_flight_max=settings.in_flight_max,
            endpoint_in_flight_max=settings.endpoint_in_flight_max,
            breaker=settings.breaker,
        )
        self.acceptor = Acceptor(
            database,
            cache,
            self.lanes,
            self.due,
            clock,
            self.measures,
            owner=settings.owner,
            lease_ms=settings.lease_ms,
        )
        self.settler = Settler(database, self.lanes, self.due, clock, self.measures, on_lines)
        self._held = HeldDeliveries(
            database,
            cache,
            self.lanes,
            self.due,
            clock,
            self.measures,
            rate_per_second=settings.release_rate_per_second,
            look_every_ms=settings.scan_every_ms * LOOK_EVERY_SCANS,
        )
        self.dispatcher = Dispatcher(
            database,
            cache,
            self.lanes,
            self.due,
            self._held,
            clock,
            owner=settings.owner,
            lease_ms=settings.lease_ms,
            scan_every_ms=settings.scan_every_ms,
        )
        self.replays = ReplayJobs(
            database,
            cache,
            self.lanes,
            self.settler,
            self.dispatcher,
            clock,
            owner=settings.owner,
            lease_ms=settings.lease_ms,
        )
        self._watch = HealthMonitor(database, cache, clock, settings.watch)
        self._watch.transitions.on_switched_off = self.switched_off
        self._attempts = Attempts(
            cache,
            self.lanes,
            sender,
            self.settler,
            clock,
            self.measures,
            schedule=settings.schedule,
            breaker=settings.breaker,
            attempt_timeout_ms=settings.attempt_timeout_ms,
            give_back=self.dispatcher.give_back,
            replay_runs=self.replays.runs,
            on_unwell=self._watch.note,
            on_gone=self._watch.note_gone,
        )
        self._running_tests = RunningTests(
            cache, self.lanes, self.settler, self.dispatcher, clock, lease_ms=settings.lease_ms
        )
        self.local_commands = LocalCommands(
            database,
            cache,
            self.lanes,
            self.dispatcher,
            self._running_tests,
            clock,
            self.measures,
            lease_ms=settings.lease_ms,
        )
        self.commands: Commands = self.local_commands
        self.relay = Relay(database, cache, clock)
        self.acceptor.listened = self.relay.listened
        self.acceptor.on_stored = self.relay.note_accepted
        self._overlaps = SecretExpiry(database, cache, clock)
        self.numbers = StatisticsUpdater(database, clock, every_ms=settings.numbers_every_ms)
        self._retention = Retention(database, clock, self.measures, retention_ms=settings.retention_ms)
        cache.on_endpoint_changed = self.lanes.adjust
        self._tasks: list[asyncio.Task[None]] = []
        self.ending = False
        """Whether its loops may end."""
        self.on_end: Callable[[BaseException | None], None] = lambda _: None
        """Called with what a loop has ended by; the process should stop. UnknownSchema is no defect, but of others."""
        self._stopping = asyncio.Event()

    def duty(self, _duty: SingletonJob) -> Callable[[], bool]:
        """Whether a duty is this process's, to be asked again and again."""
        return lambda: True

    async def join(self) -> None:
        """Become one of its processes before anything is read from the database. Raises Unavailable, UnknownSchema."""

    async def start(self, *, dispatch: bool = True) -> None:
        """Give up what an earlier life of this process had leased, and begin. Raises Unavailable.

        Without `dispatch` events are accepted and stored as due, and nothing is sent.
        """
        now = self._clock.now_ms()
        while await self._database.reclaim(now=now, owner=self.owner, limit=RECLAIM_BATCH) == RECLAIM_BATCH:
            pass
        await self._sender.start()
        self.lanes.open(self._attempts)
        self._begin("tick", self._tick())
        if not dispatch:
            self.lanes.draining = True
            return
        await self.replays.load()
        await self._watch.load()
        self._begin("dispatch", self.dispatcher.run())
        self._begin("overlaps", self._overlaps.run(self._stopping))
        self._begin("held", self._held.run(self._stopping))
        self._begin("replays", self.replays.run())
        self._begin("relay", self.relay.run(self._stopping))
        self._begin("numbers", self.numbers.run(self._stopping))
        self._begin("watch", self._watch.run(self._stopping))
        if self._retention.has_work:
            self._begin("retention", self._retention.run(self._stopping))

    def _begin(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(loop, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def note_due(self, endpoint_seq: int) -> None:
        """Something for an endpoint has become due in the database."""
        self.due.note_due(endpoint_seq)

    def forget(self, endpoint_seq: int) -> None:
        """Stop holding anything for a deleted endpoint; what it has in the database is cancelled."""
        for delivery in self.lanes.drop(endpoint_seq):
            self.dispatcher.give_back(delivery)
        self._held.look_at(endpoint_seq)
        self.replays.look_at(endpoint_seq)

    def switched_off(self, endpoint_seq: int) -> None:
        """Attempt nothing more for an endpoint that was paused or disabled; all that waits for it is held."""
        for delivery in self.lanes.empty(endpoint_seq):
            self.dispatcher.give_back(delivery)
        self._held.look_at(endpoint_seq)

    async def finish_holding(self, endpoint_seq: int, within_ms: int) -> bool:
        """Hold all that was pending for an endpoint that is off; False where that takes longer. Raises Unavailable."""
        await self.dispatcher.release_returned()
        return await self._held.finish(endpoint_seq, self._clock.now_ms() + within_ms)

    def switched_on(self, endpoint_seq: int) -> None:
        """Attempt again what is due for an endpoint, knowing nothing of how it fared; let go what it holds."""
        endpoint = self._cache.endpoints.get(endpoint_seq)
        if endpoint is not None:
            endpoint.health = endpoint.record.health
            if endpoint.owned:
                self.settler.keep_health(endpoint)
            self.lanes.start_afresh(endpoint)
        self.replays.look_at(endpoint_seq)
        self.treat_held(endpoint_seq)

    def treat_held(self, endpoint_seq: int) -> None:
        """Do with what an enabled endpoint holds as its record says."""
        self._held.look_at(endpoint_seq)
        self.note_due(endpoint_seq)

    def become(self, owner: int) -> None:
        """Lease under another number from now on."""
        self.owner = self.acceptor.owner = self.dispatcher.owner = self.replays.owner = owner

    def replay_changed(self, replay: Replay) -> None:
        """A replay was made, paused, resumed or cancelled."""
        self.replays.put(replay)

    def waiting_events(self, endpoint_seq: int) -> Collection[int] | None:
        """The numbers of the events whose deliveries wait leased for an endpoint; None if another process has it."""
        return self.lanes.waiting_events(endpoint_seq)

    def next_probe_at(self, endpoint_seq: int) -> int | None:
        """When an endpoint whose breaker is open is tried next (Unix ms); None while it is off."""
        endpoint = self._cache.endpoints.get(endpoint_seq)
        return self.lanes.next_probe_at(endpoint_seq) if endpoint is not None and endpoint.takes_deliveries else None

    def disable_at(self, endpoint_seq: int) -> int | None:
        """When an endpoint that fails will be disabled unless it succeeds before (Unix ms)."""
        return self._watch.disable_at(endpoint_seq)

    def own_load(self) -> Load:
        """How much this process has in hand now."""
        return self.lanes.load()

    def sends(self) -> bool:
        """Whether an attempt may begin now."""
        return not self.lanes.stopped

    def unheard_ms(self) -> int | None:
        """For how long other processes have not heard of this one, where that is so long that they do without it."""
        return None

    def load(self) -> Load:
        """How much all processes on the database have in hand: this one alone, where there is no other."""
        return self.own_load()

    def processes(self) -> Sequence[Process] | None:
        """Those that share the database and live, as far as is known now; None where there can be no other."""
        return None

    def held_up_by(self, endpoint_seq: int) -> HeldUpBy:
        """What keeps what is due for an endpoint, if anything is, from being attempted."""
        return self.lanes.held_up_by(endpoint_seq)

    def mass_failure(self) -> Outage | None:
        """The mass failure that goes on, while nobody is warned or disabled."""
        return self._watch.mass_failure

    def warn_at(self, endpoint_seq: int) -> int | None:
        """When the contacts of an endpoint that fails will be told unless it succeeds before (Unix ms)."""
        return self._watch.warn_at(endpoint_seq)

    async def drain(self, within_ms: int = DRAIN_MS_MAX) -> None:
        """Accept nothing more, let attempts in flight finish and settle, give the rest back to the database.

        What is still in flight after `within_ms` is cut off and given back.
        """
        deadline = self._clock.now_ms() + within_ms
        self.ending = True
        self.acceptor.close()
        self.dispatcher.stop()
        self.replays.stop()
        self.relay.stop()
        self.lanes.draining = True
        await self._until(lambda: not self.acceptor.waiting_events and not self.replays.stepping, deadline)
        for delivery in self.lanes.empty_all():
            self.dispatcher.give_back(delivery)
        await self._within(self.dispatcher.release_returned())
        await self._until(lambda: not self.lanes.in_flight, deadline)
        self._attempts.aborting = True
        await self._sender.close()
        await self._within(self.settler.drain())
        await self._within(self.relay.save())
        await self._within(self.dispatcher.release_returned())
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _within(self, work: Coroutine[Any, Any, None]) -> None:
        """Give the store a while. What it does not take is attempted again when its lease ends, or after a start."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await work
        except (StoreError, Rejected, TimeoutError) as error:
            _log.error("the database did not take everything before the stop", cause=str(error) or "no answer")

    async def _until(self, done: Callable[[], bool], deadline_ms: int) -> None:
        while not done() and self._clock.now_ms() < deadline_ms:
            await self._clock.wait(asyncio.Event(), 10)

    async def _tick(self) -> None:
        while True:
            await self._clock.wait(self._stopping, self._settings.tick_ms)
            self.acceptor.give_up_waiting()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A loop must not end before the stop: without it deliveries would wait for ever, and nobody would know."""
        if self.ending:
            return
        error = None if task.cancelled() else task.exception()
        defect = None if isinstance(error, UnknownSchema) else error
        _log.critical(f"the {task.get_name()} loop ended", cause=str(error or "it returned"), exc_info=defect)
        self.on_end(error)
