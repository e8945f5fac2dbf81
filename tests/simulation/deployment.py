"""The processes of a simulation: one without a cluster, or several on one database."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from tests.delivery.fleet import _note_changes

from uplift_server.app.cluster_parts import ClusteredFoundation
from uplift_server.app.engine_parts import EngineParts, LocalFoundation, build_engine
from uplift_server.core.operations.cluster import HEARTBEAT_EXPIRES_MS, ProcessRole
from uplift_server.delivery.clock import DatabaseTime
from uplift_server.delivery.engine import EngineSettings
from uplift_server.store import accounts, endpoints, event_types
from uplift_server.store.encryption import Cipher
from uplift_server.store.errors import Unavailable

from .clock import AHEAD_MS_MAX, HOUR, SECOND, ProcessClock, VirtualTime
from .link import Link, abandon
from .memory import InlineExecutor, MemoryDatabase
from .receivers import Network, ProcessSender

T = TypeVar("T")
CIPHER = Cipher(b"k" * 32)
QUIET_AFTER_MS = SECOND
"""The time within which the outcome of a request takes full effect."""
CHANGED_MS = 3 * SECOND
CHANGED_IN_CLUSTER_MS = 4 * SECOND
"""The time within which a change by a user takes effect in all processes."""
FAULT_MS = 40 * SECOND
"""The time after a fault within which leases end and processes are evicted."""
SKIP_MS_MIN = SECOND
SKIP_MS_MAX = 6 * HOUR
AFTER_SKIP_MS = 600
RESPONSE_S = 0.0002
"""The real time to wait for responses from a database server."""
CALL_MS_MAX = 60 * SECOND


class Lost(Exception):
    """The process died during a call of a user, so its result is unknown."""


class Bus:
    """Notifications between processes. Some are lost."""

    def __init__(self, rng: random.Random) -> None:
        self.lines: list[BusLine] = []
        self.loss = 0.0
        self._random = rng

    def publish(self, text: str) -> None:
        """Send a text to all processes."""
        for line in self.lines:
            if not line.is_deaf() and self._random.random() >= self.loss:
                asyncio.get_running_loop().call_soon(line.receive, text)


class BusLine:
    """A process's connection to the bus, with the methods of MessageBus."""

    def __init__(self, bus: Bus, link: Link, clock: ProcessClock, time: VirtualTime) -> None:
        self._bus = bus
        self._link = link
        self._clock = clock
        self._time = time
        self.receive: Callable[[str], None] = lambda _text: None

    def is_deaf(self) -> bool:
        """Return whether the process gets no notifications."""
        return self._link.is_down or self._link.is_cut or self._time.now < self._clock.suspended_until

    async def write(self, body: Any) -> Any:
        """See MessageBus."""
        return await self._link.write(body)

    def listen(self, receive: Callable[[str], None]) -> None:
        """See MessageBus."""
        self.receive = receive
        self._bus.lines.append(self)

    async def publish(self, texts: Sequence[str]) -> None:
        """See MessageBus."""
        if self._link.is_down or self._link.is_cut:
            raise Unavailable("the connection is lost")
        for text in texts:
            self._bus.publish(text)

    async def close(self) -> None:
        """See MessageBus."""
        if self in self._bus.lines:
            self._bus.lines.remove(self)


class Process:
    """A simulated process: its engine, its clock, and its connections to the database and to other processes."""

    def __init__(self, number: int, clock: ProcessClock, link: Link) -> None:
        self.number = number
        self.clock = clock
        self.link = link
        self.line: BusLine | None = None
        self.foundation: ClusteredFoundation | None = None
        self.parts: EngineParts
        self.is_dead = False
        self.is_ready = False

    def connect(self, *, is_down: bool) -> None:
        """Connect the process to its database, or disconnect it."""
        self.link.is_down = self.clock.is_disconnected = is_down

    def die(self) -> None:
        """Stop immediately, like `kill -9`. `Deployment.settle` removes the remains."""
        self.is_dead = True
        self.clock.is_stopped = True
        self.link.is_cut = True


class Deployment:
    """All processes on one database."""

    def __init__(
        self,
        rng: random.Random,
        time: VirtualTime,
        network: Network,
        settings: EngineSettings,
        *,
        is_clustered: bool,
        place: Any = None,
    ) -> None:
        """Without a `place`, the database is in memory."""
        self.time = time
        self.network = network
        self.settings = settings
        self.is_clustered = is_clustered
        self.processes: list[Process] = []
        self.bus = Bus(random.Random(rng.random()))
        self.database: Any
        self.is_down = False
        """Whether the database is down for all processes."""
        self.mutation: Any = None
        self.defects: list[BaseException | None] = []
        self.random = random.Random(rng.random())
        self.on_death: Callable[[Process], None] = lambda _process: None
        self.is_interrupted = False
        """Whether `advance` returns early."""
        self.skipped_ms = self.skips = 0
        self._place = place
        self._started = 0
        self._active_until = 0
        self._seen = (0, 0)

    async def open(self) -> None:
        """Create an empty database."""
        if self._place is None:
            asyncio.get_running_loop().set_default_executor(InlineExecutor())
            self.database = MemoryDatabase()
        else:
            self._place.prepare(now_ms=self.time.now)
            self.database = self._place.database()
        await self.database.open()
        if self.is_clustered:
            await self.database.write(_note_changes)

    async def close(self) -> None:
        """Kill all processes."""
        for process in self.processes:
            process.die()
        await self.settle()
        await self.database.close()

    # ---- processes

    @property
    def living(self) -> list[Process]:
        """The processes that can serve requests."""
        return [each for each in self.processes if each.is_ready and self.time.now >= each.clock.suspended_until]

    async def start(self, role: ProcessRole = ProcessRole.ALL) -> Process | None:
        """Start a process. Return None if the database is down, or if it dies during the start."""
        self._started += 1
        draw = self.random.randrange
        ahead = draw(-AHEAD_MS_MAX, AHEAD_MS_MAX) if self.is_clustered else 0
        clock = ProcessClock(self.time, ahead=ahead, wall_ahead=draw(-2 * SECOND, 2 * SECOND))
        link = Link(self.database, lambda: self._die(process))
        link.mutation = self.mutation
        process = Process(self._started, clock, link)
        process.connect(is_down=self.is_down)
        foundation: Any = LocalFoundation(self.settings.process_id)
        if self.is_clustered:
            process.line = BusLine(self.bus, link, clock, self.time)
            foundation = process.foundation = ClusteredFoundation(
                link, process.line, clock, DatabaseTime(lambda: clock.now_ms() * 1_000_000), role,
                read_time=lambda _: float(self.time.now),
            )  # fmt: skip
        process.parts = build_engine(
            link, CIPHER, ProcessSender(self.network, process.number, clock), clock, self.settings, foundation,
            user_agent="Uplift-Webhooks/test", public_url="https://uplift.test", on_lines=lambda _lines: None,
            on_loop_failure=lambda error: None if process.is_dead else self.defects.append(error),
            random_bytes=self.random.randbytes,
        )  # fmt: skip
        self.processes.append(process)
        try:
            await self.call(process, self._start(process))
        except (Unavailable, Lost):
            process.die()
            await self.settle()
            return None
        self.touch()
        return process

    async def _start(self, process: Process) -> None:
        parts, read = process.parts, process.link.read
        await parts.engine.join()
        parts.cache.load(
            await read(accounts.list_live), [], await read(event_types.list_live), await read(endpoints.list_live)
        )
        await parts.engine.start()
        process.is_ready = True

    async def kill(self, process: Process) -> None:
        """Kill a process."""
        self._die(process)
        await self.settle()

    def _die(self, process: Process) -> None:
        process.die()
        self.is_interrupted = True
        self.touch(FAULT_MS)
        self.on_death(process)

    async def stop(self, process: Process) -> None:
        """Drain and stop a process. Its database must be up."""
        process.is_ready = False
        try:
            await self.call(process, process.parts.engine.drain())
        except Lost:
            return
        process.die()
        await self.settle()
        self.touch()

    async def _remove(self, process: Process) -> None:
        self.processes.remove(process)
        process.is_ready = False
        process.parts.engine.ending = True
        process.parts.lanes.drain()
        if process.line is not None:
            await process.line.close()
        for task in process.parts.engine.tasks:
            task.cancel()
        await asyncio.gather(*process.parts.engine.tasks, return_exceptions=True)

    # ---- time

    async def settle(self) -> None:
        """Wait until nothing more can run at the current time. Remove the remains of killed processes."""
        while True:
            await self._run_ready()
            dead = [each for each in self.processes if each.is_dead]
            if not dead:
                return
            for process in dead:
                await self._remove(process)

    async def _run_ready(self) -> None:
        loop: Any = asyncio.get_running_loop()
        if self._place is None:
            # Everything runs on the event loop, whose queue is `_ready`.
            while loop._ready:
                await asyncio.sleep(0)
            return
        while True:
            await asyncio.sleep(0)
            if any(process.link.calls for process in self.processes):
                await asyncio.sleep(RESPONSE_S)
            elif not loop._ready and all(map(_loops_wait, self.processes)):
                return

    def touch(self, ms: int | None = None) -> None:
        """Skip no polls in the next `ms`, because the world changes. The default is enough for a change by a user."""
        if ms is None:
            ms = CHANGED_IN_CLUSTER_MS if self.is_clustered else CHANGED_MS
            if self.bus.loss:
                # The owner of an endpoint may learn of a delivery only from its next scan.
                ms += self.settings.scan_every_ms
        self._active_until = max(self._active_until, self.time.now + ms)

    async def advance(self, until: int) -> None:
        """Advance the time, and stop at every timer. Skip quiet periods. Return early after the death of a process."""
        await self.settle()
        time = self.time
        while time.now < until:
            if self.is_interrupted or self.network.observer.violation is not None:
                return
            seen = (self.network.in_flight, self.network.observer.requests)
            if seen != self._seen:
                self._seen = seen
                self.touch(QUIET_AFTER_MS)
            at = time.next_at()
            # All timers that are due now run before a skip. A heartbeat during the skip would store the time before the
            # skip, so other processes would evict its process and repeat its attempts in flight. No fault excuses that.
            is_quiet = time.now >= self._active_until and (at is None or at > time.now)
            if is_quiet and (target := self._next_activity(until)) - time.now > SKIP_MS_MIN:
                await self._skip(target - time.now)
                continue
            if at is None or at > until:
                break
            time.fire()
            nearby = time.next_at()
            if nearby is None or nearby > time.now:
                await self.settle()
        time.now = max(time.now, until)
        await self.settle()

    def _next_activity(self, until: int) -> int:
        """Return the next time at which a delivery is due or a known timer runs, limited by `until` and SKIP_MS_MAX."""
        known = self.time.next_known_at()
        times = [until, self.time.now + SKIP_MS_MAX, *([] if known is None else [int(known)])]
        for process in self.processes:
            due_at = process.parts.due.next_at
            if due_at is not None and not process.link.is_down:
                times.append(due_at - process.clock.ahead)
        return min(times)

    async def _skip(self, ms: int) -> None:
        """Skip a quiet period. Heartbeats and leader leases are renewed as if their loops had run."""
        before = self.time.now
        if self.is_clustered and not self.is_down:
            await self.database.write(lambda c: _renew(c, before, ms))
            for process in self.processes:
                assert process.foundation is not None
                membership = process.foundation.cluster.membership
                state = membership._state
                if state.trusted_until > before + process.clock.ahead:
                    state.trusted_until += ms
                    state.heartbeat_at += ms
                    state._jobs_until += ms
        self.time.skip(ms)
        self.skipped_ms += ms
        self.skips += 1
        self.touch(AFTER_SKIP_MS)

    async def call(self, process: Process, work: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
        """Await a call in a process, and advance the time until it returns. Raises Lost if the process dies."""
        task = asyncio.ensure_future(work)
        until = self.time.now + CALL_MS_MAX
        while True:
            await self.settle()
            if task.done() and not task.cancelled():
                return task.result()
            if process.is_dead:
                abandon(task)
                raise Lost
            assert self.time.now < until, "a call did not return in time"
            assert self.time.next_at() is not None, "a call waits for nothing"
            self.time.fire()


def _loops_wait(process: Process) -> bool:
    tasks = sum(not task.done() for task in process.parts.engine.tasks) if process.is_ready else 0
    return process.clock.waiting >= tasks or process.is_dead


def _renew(connection: Any, before: int, ms: int) -> None:
    connection.exec_driver_sql(
        f"UPDATE processes SET seen_at = seen_at + {ms} WHERE seen_at >= {before - HEARTBEAT_EXPIRES_MS}"
    )
    connection.exec_driver_sql(f"UPDATE duties SET until = until + {ms} WHERE until > {before}")
