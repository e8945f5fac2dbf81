"""The membership of this process in a cluster: heartbeats, evictions, singleton jobs and the database's time."""

import asyncio
import hashlib
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import structlog

from uplift_server import __version__
from uplift_server.core.operations import singleton_jobs as job_rules
from uplift_server.core.operations.clock_offset import ClockReading
from uplift_server.core.operations.cluster import (
    HEARTBEAT_EXPIRES_MS,
    HEARTBEAT_INTERVAL_MS,
    ProcessRole,
    is_heartbeat_expired,
)
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.delivery.clock import DatabaseTime
from uplift_server.delivery.cluster.notifier import Notifier
from uplift_server.delivery.cluster.state import ClusterState
from uplift_server.delivery.ports import Clock
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.store import processes, singleton_jobs
from uplift_server.store.contract import Database, MessageBus, Transaction
from uplift_server.store.errors import Unavailable
from uplift_server.store.processes import Heartbeat, Process, ProcessEvicted

RECLAIM_BATCH: Final = 1000
FAILED_WAIT_MS: Final = 200
STEP_MS_MIN: Final = 1_000
"""The minimum forward change of the clock, in ms, that counts as a jump of the system clock.

Smaller changes result from inexact readings of the database's clock.
"""
FAILED_LOGGED_EVERY_MS: Final = 10_000
READINGS_FIRST: Final = 3
NO_JOBS: Final[frozenset[SingletonJob]] = frozenset()
_log = structlog.get_logger()


class HeartbeatListener(Protocol):
    """The interface that receives the results of heartbeats."""

    def heartbeat(self, living: Sequence[Process]) -> None:
        """Handle a heartbeat of this process. `living` contains the live processes, including this process."""

    def rejoined(self) -> None:
        """Handle the eviction of this process, which has rejoined with a new process ID."""


class _Heartbeat(NamedTuple):
    """The result of a heartbeat. `now` is the database's time (Unix ms)."""

    known: list[Process]
    jobs: frozenset[SingletonJob]
    now: int


class Membership:
    """Sends heartbeats, evicts processes that stop sending them, and ends the leases of evicted processes."""

    def __init__(
        self,
        database: Database,
        bus: MessageBus,
        state: ClusterState,
        notifier: Notifier,
        listener: HeartbeatListener,
        lanes: DeliveryLanes,
        clock: Clock,
        time: DatabaseTime,
        role: ProcessRole,
        *,
        read_time: Callable[[Transaction], float] = processes.database_now,
    ) -> None:
        """Create the membership. `clock` must get its wall clock time from `time.now_ns`."""
        self._database = database
        self._bus = bus
        self._state = state
        self._notifier = notifier
        self._listener = listener
        self._lanes = lanes
        self._clock = clock
        self._time = time
        self._role = role
        self._read_time = read_time
        self._host = _host()
        self._timely_since = 0
        """The time (Unix ms) since which all heartbeats of this process have been on time. A process that sends late
        heartbeats must not evict other processes."""
        self._evicted: set[int] = set()
        """Evicted processes that still have leases."""
        self._unconfirmed: set[int] = set()
        """Processes whose eviction the database has not confirmed, because its response was lost."""
        self._eviction = asyncio.Event()
        self._heartbeat_lock = asyncio.Lock()

    async def join(self) -> None:
        """Synchronize the clock with the database, and obtain a process ID. Raises Unavailable or UnknownSchema."""
        await learn_time(self._bus, self._time, self._read_time)
        host, pid = self._host, os.getpid()

        def join(connection: Transaction) -> int:
            now = int(self._read_time(connection))
            return processes.join(connection, self._role, host=host, pid=pid, version=__version__, now=now)

        process_id = await self._bus.write(join)
        self._timely_since = self._clock.now_ms()
        self._state.join(process_id, self._timely_since)

    async def leave(self) -> None:
        """Leave the cluster. Raises Unavailable."""
        await self._bus.write(lambda c: processes.remove(c, self._state.process_id))
        self._notifier.notify_workers_changed()

    async def run(self, stopping: asyncio.Event) -> None:
        """Send heartbeats until the process stops or the task is cancelled."""
        logged_at = -FAILED_LOGGED_EVERY_MS
        while not stopping.is_set():
            self._state.heartbeat_due.clear()
            try:
                await self.send_heartbeat()
            except Unavailable as error:
                now = self._clock.now_ms()
                if now - logged_at >= FAILED_LOGGED_EVERY_MS:
                    _log.warning("heartbeat failed", cause=str(error), heartbeat_age_ms=now - self._state.heartbeat_at)
                    logged_at = now
                await self._clock.wait(stopping, FAILED_WAIT_MS)
                continue
            await self._clock.wait(self._state.heartbeat_due, HEARTBEAT_INTERVAL_MS)

    async def end_leases(self, stopping: asyncio.Event) -> None:
        """End the leases of evicted processes until the process stops or the task is cancelled.

        This loop is separate from the heartbeats, because ending many leases would delay a heartbeat for too long.
        """
        while not stopping.is_set():
            self._eviction.clear()
            try:
                for process_id in sorted(self._evicted):
                    await self._reclaim(process_id)
            except Unavailable:
                await self._clock.wait(stopping, FAILED_WAIT_MS)
                continue
            await self._clock.wait(self._eviction, HEARTBEAT_EXPIRES_MS)

    async def send_heartbeat(self) -> None:
        """Send a heartbeat, take singleton jobs, and evict dead processes. If this process was evicted, rejoin instead.

        Raises Unavailable. Raises UnknownSchema if another release changed the database before this process rejoined.
        """
        async with self._heartbeat_lock:
            began = self._clock.now_ms()
            state, load = self._state, self._lanes.load()
            jobs_to_take = [job for job in SingletonJob if state.can_do(job)] if state.delivers else []
            heartbeat = Heartbeat(state.delivers, state.view, load.in_flight, load.in_flight_max, load.waiting)
            readings = []

            def beat(connection: Transaction) -> _Heartbeat:
                readings.append(_reading(self._time, self._read_time, connection))
                now = int(readings[-1].theirs)
                known = processes.record_heartbeat(connection, state.process_id, heartbeat, now=now)
                jobs = (
                    singleton_jobs.take(connection, jobs_to_take, process_id=state.process_id, now=now)
                    if jobs_to_take
                    else NO_JOBS
                )
                return _Heartbeat(known, jobs, now)

            try:
                found = await self._bus.write(beat)
            except ProcessEvicted:
                await self._rejoin()
                return
            began = self._learn_time(readings[-1], began)
            members = [
                each for each in found.known if each.seq == state.process_id or not self._is_dead(each, found.now)
            ]
            state.renew(began, members)
            state.take_jobs(found.jobs, began + job_rules.LEASE_TRUSTED_MS)
            # If a process is no longer known, its eviction succeeded, but the response from the database was lost.
            for process_id in self._unconfirmed.difference(each.seq for each in found.known):
                self._end_leases(process_id)
            self._unconfirmed.clear()
            self._listener.heartbeat(members)
            for each in found.known:
                if each not in members:
                    await self._evict(each)

    def _learn_time(self, reading: ClockReading, began: int) -> int:
        """Adjust the clock to the database's clock.

        Return the time when the heartbeat started, according to the adjusted clock (Unix ms).
        """
        before = self._clock.now_ms()
        self._time.add_reading(reading)
        step_ms = self._clock.now_ms() - before
        if step_ms >= STEP_MS_MIN:
            # The system clock has jumped, so the times of earlier heartbeats cannot show whether a heartbeat was late.
            self._timely_since = self._clock.now_ms()
            return began + step_ms
        if began >= self._state.trusted_until:
            self._timely_since = began
        return began

    def _is_dead(self, process: Process, now: int) -> bool:
        if process.host == self._host and not _runs(process.pid):
            return True
        return (
            is_heartbeat_expired(process.seen_at, now)
            and self._clock.now_ms() - self._timely_since > HEARTBEAT_EXPIRES_MS
        )

    async def _evict(self, process: Process) -> None:
        """Evict a dead process and then end its leases, unless the process has just sent a heartbeat.

        Because of this order, the dead process cannot use leases that it has lost. If this process stops between the
        two steps, the leases expire.
        """
        self._unconfirmed.add(process.seq)
        is_evicted = await self._bus.write(lambda c: processes.remove(c, process.seq, seen_at=process.seen_at))
        # If no row was removed, the process has sent a heartbeat, or an earlier eviction succeeded but its response was
        # lost. The next heartbeat of this process reads the list of known processes, which shows what happened.
        if is_evicted:
            self._unconfirmed.discard(process.seq)
            _log.warning("process evicted", process_id=process.seq, host=process.host, pid=process.pid)
            self._end_leases(process.seq)

    async def _rejoin(self) -> None:
        before = self._state.process_id
        _log.warning("this process was evicted, rejoining", process_id=before)
        self._state.mark_evicted()
        await self.join()
        self._listener.rejoined()
        self._state.request_heartbeat()
        # The database may have leased deliveries to the old process ID after other processes ended its leases.
        self._end_leases(before)

    def _end_leases(self, process_id: int) -> None:
        self._evicted.add(process_id)
        self._eviction.set()

    async def _reclaim(self, process_id: int) -> None:
        now = self._clock.now_ms()
        while await self._database.reclaim(now=now, process_id=process_id, limit=RECLAIM_BATCH) == RECLAIM_BATCH:
            pass
        self._evicted.discard(process_id)
        self._notifier.notify_workers_changed()


def _host() -> str:
    """Return the host name and a digest of the boot ID and the PID namespace.

    If two processes have the same result, each can check by PID whether the other process is running.
    """
    try:
        running = Path("/proc/sys/kernel/random/boot_id").read_bytes() + bytes(Path("/proc/self/ns/pid").readlink())
    except OSError:
        # Systems other than Linux do not show which processes can see each other, so use a random value.
        running = os.urandom(16)
    return f"{socket.gethostname()}#{hashlib.sha256(running).hexdigest()[:16]}"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


async def learn_time(
    bus: MessageBus, time: DatabaseTime, read_time: Callable[[Transaction], float] = processes.database_now
) -> None:
    """Add the first readings of the database's clock to `time`. Raises Unavailable."""
    # The first reading is not exact, because it includes the time to prepare the connection.
    for _ in range(READINGS_FIRST):
        time.add_reading(await bus.write(partial(_reading, time, read_time)))


def _reading(time: DatabaseTime, read_time: Callable[[Transaction], float], connection: Transaction) -> ClockReading:
    began_at = time.ticks_ms()
    theirs = read_time(connection)
    return ClockReading(began_at, theirs, time.ticks_ms())
