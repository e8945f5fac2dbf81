"""Being one of several processes: a heartbeat every second, by which this one is known, and knows of the others.

With it go the database's time, the duties of this process, and what has become of those who are heard of no more.
"""

import asyncio
import hashlib
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from uplift_server import __version__
from uplift_server.core.operations import singleton_jobs as duty_rules
from uplift_server.core.operations.clock_offset import Reading
from uplift_server.core.operations.cluster import DEAD_AFTER_MS, HEARTBEAT_EVERY_MS, TRUSTED_MS, ProcessRole, is_dead
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.delivery.clock import Clock, DatabaseTime
from uplift_server.delivery.cluster.notifier import Notifier
from uplift_server.delivery.scheduling.lanes import Load
from uplift_server.store import processes, singleton_jobs
from uplift_server.store.contract import Database, MessageBus, Transaction
from uplift_server.store.errors import Unavailable
from uplift_server.store.processes import Forgotten, Heartbeat, Process

RECLAIM_BATCH: Final = 1000
FAILED_WAIT_MS: Final = 200
STEP_MS_MIN: Final = 1_000
"""A clock that is set forward by less was only read more exactly; no process is taken for dead by so little."""
FAILED_TOLD_EVERY_MS: Final = 10_000
READINGS_FIRST: Final = 3
NO_DUTIES: Final[frozenset[SingletonJob]] = frozenset()
_log = structlog.get_logger()


class _Beat(NamedTuple):
    """What a heartbeat has told. Instants are Unix ms of the database."""

    known: list[Process]
    duties: frozenset[SingletonJob]
    now: int


class Membership:
    """This process among those on its database. `number` is what it leases by."""

    def __init__(
        self,
        database: Database,
        line: MessageBus,
        post: Notifier,
        clock: Clock,
        time: DatabaseTime,
        role: ProcessRole,
        *,
        load: Callable[[], Load],
        read_time: Callable[[Transaction], float] = processes.database_now,
    ) -> None:
        self._database = database
        self._line = line
        self._post = post
        self._clock = clock
        self._time = time
        self.role = role
        self._load = load
        self._database_now = read_time
        self._place = _place()
        self.number = 0
        self.delivers = False
        """Whether endpoints may belong to it: not before all is ready, nor once it is about to stop."""
        self.view = 0
        """The workers it acts by."""
        self.trusted_until = 0
        """Until when it may act as one of the living (Unix ms)."""
        self._heard_at = 0
        """When it was last heard of (Unix ms)."""
        self.living: Sequence[Process] = ()
        """All that lived at the latest heartbeat, this one included."""
        self._duties: frozenset[SingletonJob] = frozenset()
        self._duties_until = 0
        self._unbroken_since = 0
        """Since when no heartbeat was late: others are not judged by a time in which the database was away."""
        self._buried: set[int] = set()
        """The dead whose leases are still to be ended."""
        self._doubtful: set[int] = set()
        """Those of whom it was not heard whether they are forgotten."""
        self._burying = asyncio.Event()
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self.on_forgotten: Callable[[], None] = lambda: None
        """Told when this process was taken for dead."""
        self.on_renumbered: Callable[[], None] = lambda: None
        """Told when it has begun another life after that."""
        self.on_beat: Callable[[Sequence[Process]], None] = _ignore
        """Told of all who live, this one included, with every heartbeat."""

    def unheard_ms(self) -> int | None:
        """For how long nobody has heard of it, where that is longer than it may act as one of the living."""
        unheard_ms = self._clock.now_ms() - self._heard_at
        return unheard_ms if unheard_ms > TRUSTED_MS else None

    def has_duty(self, duty: SingletonJob) -> bool:
        """Whether this is for this process to do now, and not for another."""
        return duty in self._duties and self._clock.now_ms() < self._duties_until

    async def join(self) -> None:
        """Learn the database's time, and begin a life. Raises Unavailable, and UnknownSchema: see `admission.admit`."""
        await learn_time(self._line, self._time, self._database_now)
        host, pid = self._place, os.getpid()

        def join(connection: Transaction) -> int:
            now = int(self._database_now(connection))
            return processes.join(connection, self.role, host=host, pid=pid, version=__version__, now=now)

        self.number = self._post.own = await self._line.write(join)
        self._heard_at = self._unbroken_since = self._clock.now_ms()

    async def leave(self) -> None:
        """End this life: nothing is leased to it any more. Raises Unavailable."""
        await self._line.write(lambda c: processes.forget(c, self.number))
        self._post.tell_moved()

    def hurry(self) -> None:
        """Let the next heartbeat come at once."""
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Be heard of until stopped; whoever stops it cancels the wait."""
        told_at = -FAILED_TOLD_EVERY_MS
        while not stopping.is_set():
            self._wake.clear()
            try:
                await self.beat()
            except Unavailable as error:
                now = self._clock.now_ms()
                if now - told_at >= FAILED_TOLD_EVERY_MS:
                    _log.warning("a heartbeat failed", cause=str(error), unheard_ms=now - self._heard_at)
                    told_at = now
                await self._clock.wait(stopping, FAILED_WAIT_MS)
                continue
            await self._clock.wait(self._wake, HEARTBEAT_EVERY_MS)

    async def end_leases(self, stopping: asyncio.Event) -> None:
        """Let what the dead had leased be anybody's, until stopped; whoever stops it cancels the wait.

        Beside the heartbeats: of many leases, or where the database is slow, it takes longer than one may be late.
        """
        while not stopping.is_set():
            self._burying.clear()
            try:
                for number in sorted(self._buried):
                    await self._reclaim(number)
            except Unavailable:
                await self._clock.wait(stopping, FAILED_WAIT_MS)
                continue
            await self._clock.wait(self._burying, DEAD_AFTER_MS)

    async def beat(self) -> None:
        """Be heard of once, and hear of the others. Raises Unavailable; UnknownSchema after it was taken for dead."""
        async with self._turn:
            began = self._clock.now_ms()
            wanted = list(SingletonJob) if self.delivers else []
            load = self._load()
            told = Heartbeat(self.delivers, self.view, load.in_flight, load.in_flight_max, load.waiting)
            readings = []

            def beat(connection: Transaction) -> _Beat:
                readings.append(_reading(self._time, self._database_now, connection))
                now = int(readings[-1].theirs)
                known = processes.beat(connection, self.number, told, now=now)
                return _Beat(
                    known,
                    singleton_jobs.take(connection, wanted, by=self.number, now=now) if wanted else NO_DUTIES,
                    now,
                )

            try:
                found = await self._line.write(beat)
            except Forgotten:
                await self._live_again()
                return
            before = self._clock.now_ms()
            self._time.learn(readings[-1])
            set_ms = self._clock.now_ms() - before
            if set_ms >= STEP_MS_MIN:
                # When others were heard of last stands there by the clock as it was: they have to be heard of anew.
                began, self._unbroken_since = began + set_ms, self._clock.now_ms()
            elif began >= self.trusted_until:
                self._unbroken_since = began
            self._heard_at, self.trusted_until = began, began + TRUSTED_MS
            self._duties, self._duties_until = found.duties, began + duty_rules.TRUSTED_MS
            # Those who are not known any more are: the answer was lost.
            for number in self._doubtful.difference(each.seq for each in found.known):
                self._end_leases(number)
            self._doubtful.clear()
            living = self.living = [
                each for each in found.known if each.seq == self.number or not self._is_dead(each, found.now)
            ]
            self.on_beat(living)
            for each in found.known:
                if each not in living:
                    await self._bury(each)

    def _is_dead(self, process: Process, now: int) -> bool:
        if process.host == self._place and not _is_there(process.pid):
            return True
        return is_dead(process.seen_at, now) and self._clock.now_ms() - self._unbroken_since > DEAD_AFTER_MS

    async def _bury(self, process: Process) -> None:
        """Forget a dead process, unless it is heard of just now. Then what it had leased is anybody's again.

        In this order it cannot act on leases that it has lost. Where this process dies between the two, they end by
        themselves.
        """
        self._doubtful.add(process.seq)
        is_forgotten = await self._line.write(lambda c: processes.forget(c, process.seq, heard_at=process.seen_at))
        # Where not, it was heard of, or the answer was lost that it is forgotten: the next heartbeat tells which.
        if is_forgotten:
            self._doubtful.discard(process.seq)
            _log.warning("a process is heard of no more", process=process.seq, host=process.host, pid=process.pid)
            self._end_leases(process.seq)

    async def _live_again(self) -> None:
        _log.warning("this process was taken for dead, and begins anew", process=self.number)
        self.trusted_until, self._duties = 0, NO_DUTIES
        self.on_forgotten()
        before = self.number
        await self.join()
        self.on_renumbered()
        self._wake.set()
        # What it had asked for may have been done late, after others had looked for what it has.
        self._end_leases(before)

    def _end_leases(self, number: int) -> None:
        self._buried.add(number)
        self._burying.set()

    async def _reclaim(self, number: int) -> None:
        now = self._clock.now_ms()
        while await self._database.reclaim(now=now, owner=number, limit=RECLAIM_BATCH) == RECLAIM_BATCH:
            pass
        self._buried.discard(number)
        self._post.tell_moved()


def _place() -> str:
    """Where this process runs: among the same processes as whoever names the same place."""
    try:
        running = Path("/proc/sys/kernel/random/boot_id").read_bytes() + bytes(Path("/proc/self/ns/pid").readlink())
    except OSError:
        # Of other systems it is not known who can see whom: two may well have the same name.
        running = os.urandom(16)
    return f"{socket.gethostname()}#{hashlib.sha256(running).hexdigest()[:16]}"


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


async def learn_time(
    line: MessageBus, time: DatabaseTime, read_time: Callable[[Transaction], float] = processes.database_now
) -> None:
    """Learn the database's time, before anything goes by it. Raises Unavailable."""
    # The first question comes with everything that has to be prepared for it, and so tells little of the time.
    for _ in range(READINGS_FIRST):
        time.learn(await line.write(partial(_reading, time, read_time)))


def _reading(time: DatabaseTime, read_time: Callable[[Transaction], float], connection: Transaction) -> Reading:
    asked_at = time.ticks_ms()
    theirs = read_time(connection)
    return Reading(asked_at, theirs, time.ticks_ms())


def _ignore(_living: Sequence[Process]) -> None:
    pass
