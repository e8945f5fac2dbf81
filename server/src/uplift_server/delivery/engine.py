"""The delivery engine: runs the loops that deliver events, and settles the attempts in flight when it stops."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import structlog

from uplift_server.core.endpoint_settings import AttemptTimeouts
from uplift_server.core.limits import DRAIN_MS_MAX
from uplift_server.core.scheduling.circuit_breaker import BreakerRule
from uplift_server.core.scheduling.retry_schedule import RetrySchedule
from uplift_server.delivery.health.monitor import HealthMonitor, HealthSettings
from uplift_server.delivery.ingest import EventIngest
from uplift_server.delivery.listening.relay import Relay
from uplift_server.delivery.ports import Clock, Shards
from uplift_server.delivery.replays.jobs import ReplayJobs
from uplift_server.delivery.scheduling.dispatcher import Dispatcher
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.delivery.sending.attempts import Attempts
from uplift_server.delivery.sending.http.request import RequestSender
from uplift_server.delivery.sending.settler import Settler
from uplift_server.store.contract import Database
from uplift_server.store.errors import Rejected, StoreError
from uplift_server.store.schema_version import UnknownSchema

RECLAIM_BATCH: Final = 1000
STORE_WITHIN_S: Final = 2.5
"""The time limit, in seconds, for each database response during shutdown.

This limit is longer than the longest wait for another program's lock.
"""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The settings of the delivery engine."""

    schedule: RetrySchedule
    breaker: BreakerRule
    timeouts: AttemptTimeouts
    lease_ms: int
    """The duration of a lease, in ms. It must be longer than all timeouts."""
    in_flight_max: int
    endpoint_in_flight_max: int
    retention_ms: int
    health: HealthSettings
    release_rate_per_second: int = 50
    """The number of held deliveries that the engine releases per second after an endpoint is enabled."""
    scan_every_ms: int = 1000
    """The interval, in ms, between scans of the database for due deliveries whose due time the engine does not know."""
    statistics_every_ms: int = 1000
    """The interval, in ms, between updates of the statistics. An update delays deliveries by a few milliseconds."""
    retention_every_ms: int = 60_000
    """The interval, in ms, between retention passes.

    A pass creates the next partition of a partitioned store and deletes expired rows.
    """
    tick_ms: int = 100
    """The interval, in ms, between checks for requests whose events were not stored in time."""
    operations_account: str | None = None
    """The ID or uid of the account that receives operational events about every account."""
    process_id: int = 1
    """The process ID of a process outside a cluster. It must not be 0."""


class Sender(RequestSender, Protocol):
    """The interface to the HTTP client. The engine starts and closes the client."""

    async def start(self) -> None:
        """Prepare to send requests."""

    async def close(self) -> None:
        """Close the client. Attempts in flight fail."""


class Loop(NamedTuple):
    """A loop of the engine. The engine runs each loop as a task until the engine stops."""

    name: str
    run: Callable[[asyncio.Event], Coroutine[Any, Any, None]]
    """A coroutine function. Its argument is an asyncio event that the engine sets to end the loop."""


class Cluster(Protocol):
    """The interface through which this process joins and leaves the cluster."""

    @property
    def delivers(self) -> bool:
        """Whether the role of this process includes deliveries."""

    async def join(self) -> None:
        """Join the cluster. Call this before anything else reads from the database.

        Raises Unavailable or UnknownSchema.
        """

    async def arrive(self, *, delivers: bool) -> None:
        """Announce that this process is ready. `delivers` states whether this process delivers events."""

    def loops(self, *, delivers: bool) -> Iterable[Loop]:
        """Return the loops that a member of the cluster runs."""

    async def hand_over(self) -> None:
        """Hand over the endpoints of this process to the other workers."""

    async def leave(self) -> None:
        """Announce that this process is stopping."""


class SingleProcess:
    """Implements `Cluster` for a process that does not share its database with other processes."""

    delivers = True

    async def join(self) -> None:
        """Do nothing: there are no other processes."""

    async def arrive(self, *, delivers: bool) -> None:
        """Do nothing: there are no other processes."""

    def loops(self, *, delivers: bool) -> Iterable[Loop]:
        """Return no loops: there are no other processes."""
        del delivers
        return ()

    async def hand_over(self) -> None:
        """Do nothing: there are no other processes."""

    async def leave(self) -> None:
        """Do nothing: there are no other processes."""


class Engine:
    """Starts, runs and stops the parts that deliver accepted events and store the outcomes."""

    def __init__(
        self,
        database: Database,
        shards: Shards,
        cluster: Cluster,
        sender: Sender,
        lanes: DeliveryLanes,
        attempts: Attempts,
        event_ingest: EventIngest,
        settler: Settler,
        dispatcher: Dispatcher,
        replays: ReplayJobs,
        monitor: HealthMonitor,
        relay: Relay,
        loops: Sequence[Loop],
        clock: Clock,
        *,
        tick_ms: int,
        on_loop_failure: Callable[[BaseException | None], None],
    ) -> None:
        """Create the engine, which runs `loops` while this process delivers events.

        If a loop ends unexpectedly, the engine calls `on_loop_failure` with the error, to stop the process. The error
        is UnknownSchema if another release changed the database.
        """
        self._database = database
        self._shards = shards
        self._cluster = cluster
        self._sender = sender
        self._lanes = lanes
        self._attempts = attempts
        self._event_ingest = event_ingest
        self._settler = settler
        self._dispatcher = dispatcher
        self._replays = replays
        self._monitor = monitor
        self._relay = relay
        self._loops = loops
        self._clock = clock
        self._tick_ms = tick_ms
        self._on_loop_failure = on_loop_failure
        self.tasks: list[asyncio.Task[None]] = []
        self.ending = False
        """Whether the engine is stopping. While it is stopping, the engine does not report loops that end."""
        self._stopping = asyncio.Event()

    async def join(self) -> None:
        """Join the cluster. Call this before anything else reads from the database.

        Raises Unavailable or UnknownSchema.
        """
        await self._cluster.join()

    async def start(self, *, dispatch: bool = True) -> None:
        """Start the loops. Raises Unavailable.

        If `dispatch` is false, or if the role of this process does not include deliveries, the engine accepts events
        and stores their deliveries as due, but sends no deliveries.
        """
        await self._reclaim()
        await self._sender.start()
        self._lanes.open(self._attempts)
        self._begin(Loop("tick", self._tick))
        self._begin(Loop("relay", self._relay.run))
        delivers = dispatch and self._cluster.delivers
        if delivers:
            await self._replays.load()
            await self._monitor.load()
            self._begin(Loop("dispatch", lambda _: self._dispatcher.run()))
            self._begin(Loop("replays", lambda _: self._replays.run()))
            self._begin(Loop("health", self._monitor.run))
            for loop in self._loops:
                self._begin(loop)
        else:
            self._lanes.drain()
        await self._cluster.arrive(delivers=delivers)
        for loop in self._cluster.loops(delivers=delivers):
            self._begin(loop)

    async def _reclaim(self) -> None:
        """End the leases that this process held before it restarted."""
        now, own = self._clock.now_ms(), self._shards.process_id
        while await self._database.reclaim(now=now, process_id=own, limit=RECLAIM_BATCH) == RECLAIM_BATCH:
            pass

    def _begin(self, loop: Loop) -> None:
        task = asyncio.create_task(loop.run(self._stopping), name=loop.name)
        task.add_done_callback(self._ended)
        self.tasks.append(task)

    async def drain(self, within_ms: int = DRAIN_MS_MAX) -> None:
        """Reject new events, settle the attempts in flight, and release the leases of other deliveries.

        After `within_ms`, abort the attempts that are still in flight, and release their leases. Finally, stop all
        loops and leave the cluster.
        """
        until_ms = self._clock.now_ms() + within_ms
        self.ending = True
        await self._cluster.hand_over()
        self._event_ingest.close()
        self._dispatcher.stop()
        self._replays.stop()
        self._relay.stop()
        self._lanes.drain()
        await self._until(lambda: not self._event_ingest.waiting_events and not self._replays.stepping, until_ms)
        for delivery in self._lanes.empty_all():
            self._dispatcher.release_lease(delivery)
        await self._within(self._dispatcher.release_unused())
        await self._until(lambda: not self._lanes.in_flight, until_ms)
        self._attempts.abort()
        await self._sender.close()
        await self._within(self._settler.drain())
        await self._within(self._relay.save())
        await self._within(self._dispatcher.release_unused())
        self._stopping.set()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self._cluster.leave()

    async def _within(self, work: Awaitable[None]) -> None:
        """Run a step of the shutdown that writes to the database, for at most STORE_WITHIN_S.

        If the step fails or the database does not respond in time, the server repeats the unfinished work after a
        restart or when the leases end.
        """
        try:
            async with asyncio.timeout(STORE_WITHIN_S):
                await work
        except (StoreError, Rejected, TimeoutError) as error:
            _log.error("outcomes or leases not written at shutdown", cause=str(error) or "timeout")

    async def _until(self, done: Callable[[], bool], until_ms: int) -> None:
        while not done() and self._clock.now_ms() < until_ms:
            await self._clock.wait(asyncio.Event(), 10)

    async def _tick(self, stopping: asyncio.Event) -> None:
        while True:
            await self._clock.wait(stopping, self._tick_ms)
            self._event_ingest.expire_waiting()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Report a loop that ended unexpectedly. Otherwise, deliveries could stop without a warning."""
        if self.ending:
            return
        error = None if task.cancelled() else task.exception()
        defect = None if isinstance(error, UnknownSchema) else error
        _log.critical("background loop ended", loop=task.get_name(), cause=str(error or "returned"), exc_info=defect)
        self._on_loop_failure(error)
