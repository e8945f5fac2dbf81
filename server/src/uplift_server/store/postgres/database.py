"""The PostgreSQL engine: the contract on one database, whatever other processes do with it."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from operator import ge
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy import Connection

from uplift_server.core.limits import WRITES_WAITING_MAX
from uplift_server.observe.counters import StoreCounters
from uplift_server.observe.store_health import StoreHealth, name_of
from uplift_server.store.errors import Rejected, Unavailable
from uplift_server.store.hot_records import (
    Appended,
    DueEndpoint,
    HealthRow,
    HeldRequest,
    IdempotencyConflict,
    LeasedDelivery,
    LeaseRequest,
    NewEvent,
    Released,
    ReplayBatch,
    ReplayLease,
    ReplayRelease,
    Settlement,
)
from uplift_server.store.partitions import Partitions
from uplift_server.store.postgres.append import append_events
from uplift_server.store.postgres.connection import (
    DRIVER_ERRORS,
    HOT_SETTINGS,
    Connections,
    Opener,
    Pair,
    Raw,
    is_lost,
    is_repeatable,
    translated,
    trouble_of,
)
from uplift_server.store.postgres.group_commit import GroupCommit, Groups, Results
from uplift_server.store.postgres.held import release_held
from uplift_server.store.postgres.lease import due_endpoints, lease_due, next_due, reclaim, release
from uplift_server.store.postgres.partitions import PostgresPartitions
from uplift_server.store.postgres.replay import read_replay_batch, release_replay
from uplift_server.store.postgres.settle import settle
from uplift_server.store.postgres.stream_position import LOOK, StreamPositionFinder
from uplift_server.store.replays import Replay, ReplaySelection
from uplift_server.store.stream_position import StreamPosition

R = TypeVar("R")

_log = structlog.get_logger()

UNKNOWN: Final = "it is not known yet what can be read: a transaction that writes has lasted for seconds"
HOT_CONNECTIONS: Final = 4
READERS: Final = 3
WRITERS: Final = 3
"""Connections for ordinary writes: while two wait for a lock of one account, others use the third."""
CONNECTIONS_MAX: Final = HOT_CONNECTIONS + READERS + WRITERS + 2
"""The connections of a process: besides these, one for reads that must not wait, and one for notifications."""
READS_WAITING_MAX: Final = 256
HOT_WAITING_MAX: Final = 256
READ_MS_MAX: Final = 4000
LOOKS_MAX: Final = 5
LOOK_EVERY_MS: Final = 4
FIRST_LOOK_EVERY_MS: Final = 40
FIRST_LOOKS_MS_MAX: Final = 2000
UNKNOWN_TOLD_EVERY_S: Final = 60.0
REPEATS_MAX: Final = 8
"""How often a verb is repeated that other transactions were in the way of."""
REPEAT_WAIT_MS_MAX: Final = 20
WRITE_LOCK: Final = 0x75706C696674
"""The advisory lock of ordinary writes, which share it. Releases up to 0.1.2, which may run beside this one, take it
exclusively and lock nothing else."""


class PostgresDatabase:
    """See `store.contract.Database`."""

    def __init__(self, url: str) -> None:
        opener = Opener(url)
        hot_opener = Opener(url, settings=HOT_SETTINGS)
        self._hot_connections = Connections(hot_opener.pair, limit=HOT_CONNECTIONS, waiting_max=HOT_WAITING_MAX)
        self._readers = Connections(opener.pair, limit=READERS, waiting_max=READS_WAITING_MAX)
        self._first_readers = Connections(opener.pair, limit=1, waiting_max=READS_WAITING_MAX)
        self._writers = Connections(opener.pair, limit=WRITERS, waiting_max=WRITES_WAITING_MAX)
        self._group_commit = GroupCommit(self._store)
        self._lookout = StreamPositionFinder()
        self._looking = asyncio.Lock()
        self._looked_at = 0.0
        """When the latest look began (monotonic)."""
        self._told_at = -UNKNOWN_TOLD_EVERY_S
        self._under_way: set[asyncio.Task[Any]] = set()
        self._settling: asyncio.Task[frozenset[tuple[int, int]]] | None = None
        """The latest settlement."""
        self.measures = StoreCounters()
        """See the contract."""
        self.health = StoreHealth()
        """See the contract."""
        self.partitions: Partitions | None = PostgresPartitions(self._written, self._transacted, self._looked)
        """See the contract."""

    @property
    def writes_waiting(self) -> int:
        """See the contract."""
        return self._group_commit.waiting + self._hot_connections.waiting + self._writers.waiting

    async def open(self) -> None:
        """See the contract."""
        await self.read(lambda c: c.exec_driver_sql("SELECT 1").scalar())

    async def close(self) -> None:
        """See the contract."""
        await self._group_commit.finish()
        while self._under_way:
            await asyncio.wait(self._under_way)
        for connections in (self._hot_connections, self._readers, self._first_readers, self._writers):
            await connections.close()

    def append(self, groups: Sequence[Sequence[NewEvent]]) -> Awaitable[list[list[Appended] | IdempotencyConflict]]:
        """See the contract."""
        return self._group_commit.append(groups)

    def lease_due(
        self, requests: Sequence[LeaseRequest], *, now: int, lease_until: int, process_id: int, body_bytes_max: int
    ) -> Awaitable[list[LeasedDelivery]]:
        """See the contract."""
        return self._hot(
            lambda pair: lease_due(
                pair.raw,
                requests,
                now=now,
                lease_until=lease_until,
                process_id=process_id,
                body_bytes_max=body_bytes_max,
            )
        )

    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> Awaitable[frozenset[tuple[int, int]]]:
        """See the contract."""
        self._settling = self._hot(lambda pair: settle(pair.raw, settlements, health, process_id=process_id))
        return self._settling

    def release(self, leases: Sequence[tuple[int, int, int]], *, now: int) -> Awaitable[None]:
        """See the contract."""
        return self._hot(lambda pair: release(pair.raw, leases, now=now))

    def reclaim(self, *, now: int, process_id: int | None = None, limit: int = 1000) -> Awaitable[int]:
        """See the contract."""
        return self._hot(lambda pair: reclaim(pair.raw, now=now, process_id=process_id, limit=limit))

    def release_held(self, requests: Sequence[HeldRequest], *, now: int) -> Awaitable[list[Released]]:
        """See the contract."""
        return self._hot(lambda pair: release_held(pair.raw, requests, now=now))

    def release_replay(
        self, replay_seq: int, choice: ReplaySelection, ahead: ReplayBatch, lease: ReplayLease
    ) -> Awaitable[ReplayRelease]:
        """See the contract. Outcomes that were handed over before come first, as on SQLite: they make room."""
        release = self._measured(_alone(lambda pair: release_replay(pair.raw, replay_seq, choice, ahead, lease)))
        settling = self._settling

        async def released() -> ReplayRelease:
            if settling is not None:
                await asyncio.wait([settling])
            return await self._repeated(self._hot_connections, release)

        return self._begun(released())

    async def read_replay_batch(
        self, replay: Replay, *, first: int, rows: int, limit: int, body_bytes_max: int
    ) -> ReplayBatch:
        """See the contract."""
        return await self._hot(
            lambda pair: read_replay_batch(
                pair.raw, replay, first=first, rows=rows, limit=limit, body_bytes_max=body_bytes_max
            ),
            only_reads=True,
        )

    async def due_endpoints(self, *, after: int = 0, limit: int = 1000) -> list[DueEndpoint]:
        """See the contract."""
        return await self._hot(
            lambda pair: due_endpoints(pair.raw, after=after, limit=limit),
            only_reads=True,
        )

    def next_due(self, endpoint_seqs: Sequence[int]) -> Awaitable[list[DueEndpoint]]:
        """See the contract."""
        return self._hot(lambda pair: next_due(pair.raw, endpoint_seqs), only_reads=True)

    async def stream_position(self) -> StreamPosition:
        """See the contract. What is being written just now is waited for a moment, so that it is told of, too.

        Until one is known at all, that is waited for longer: whoever went by none would begin with the first event.
        """
        began = time.monotonic()
        wanted = await self._look_out()
        look = 0
        while True:
            known = self._lookout.stream_position
            if known is not None and (look >= LOOKS_MAX or all(map(ge, known, wanted))):
                return known
            if known is None and 1000 * (time.monotonic() - began) > FIRST_LOOKS_MS_MAX:
                self._tell_unknown()
                raise Unavailable(UNKNOWN)
            await asyncio.sleep((LOOK_EVERY_MS if look < LOOKS_MAX else FIRST_LOOK_EVERY_MS) / 1000)
            await self._look_out()
            look += 1

    def _tell_unknown(self) -> None:
        if time.monotonic() - self._told_at >= UNKNOWN_TOLD_EVERY_S:
            self._told_at = time.monotonic()
            _log.warning("lists and streams do not begin yet", cause=UNKNOWN)

    async def _look_out(self) -> StreamPosition:
        """Look once for the stream_position; how far numbers were given then."""

        async def look(pair: Pair) -> None:
            async with pair.alone():
                row = await pair.raw.fetchrow(LOOK)
            assert row is not None
            *numbers, holders = row
            self._lookout.note(StreamPosition(*numbers), holders)

        asked_at = time.monotonic()
        # One after the other: an answer that comes late would tell of locks as they were before.
        async with self._looking:
            if asked_at >= self._looked_at:
                # Else somebody has begun to look while this one waited for its turn.
                began = time.monotonic()
                await self._repeated(self._readers, look, again_when_lost=True)
                self._looked_at = began
            return self._lookout.given

    async def read(self, body: Callable[[Connection], R]) -> R:
        """See the contract."""
        return await self._read(self._readers, body)

    async def read_with_priority(self, body: Callable[[Connection], R]) -> R:
        """See the contract."""
        return await self._read(self._first_readers, body)

    async def _read(self, connections: Connections, body: Callable[[Connection], R]) -> R:
        async def read(pair: Pair) -> R:
            await pair.raw.execute(
                f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {pair.settings}SET LOCAL statement_timeout ="
                f" {READ_MS_MAX}"
            )
            try:
                return await pair.sql.run_sync(body)
            finally:
                await _end(pair.raw)

        name = name_of(body)

        async def noted() -> R:
            try:
                result = await self._repeated(connections, read, again_when_lost=True)
            except (Unavailable, Rejected) as error:
                self.health.note_failed_read(name, trouble_of(error.__cause__ or error), error)
                raise
            self.health.note_read(name)
            return result

        reading = self._begun(noted())
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            # Whoever asked goes at once. Until PostgreSQL has heard of it, or is given up, takes a while.
            reading.cancel()
            raise

    async def write(self, body: Callable[[Connection], R]) -> R:
        """See the contract."""
        return await self._written(lambda pair: pair.sql.run_sync(body))

    async def write_with_events(self, body: Callable[[Connection], tuple[R, Sequence[NewEvent]]]) -> R:
        """See the contract."""

        async def write(pair: Pair) -> R:
            result, owed = await pair.sql.run_sync(body)
            await append_events(pair.raw, [owed])
            return result

        return await self._written(write)

    async def append_then(self, event: NewEvent, body: Callable[[Connection, int], R]) -> R:
        """See the contract."""

        async def append(pair: Pair) -> R:
            ((appended,),) = await append_events(pair.raw, [[event]])  # type: ignore[misc]
            return await pair.sql.run_sync(body, appended.seq)

        return await self._written(append)

    async def _store(self, groups: Groups) -> Results:
        append = self._measured(lambda pair: append_events(pair.raw, groups, pair.alone))
        return await self._repeated(self._hot_connections, append)

    def _hot(self, body: Callable[[Pair], Awaitable[R]], *, only_reads: bool = False) -> "asyncio.Task[R]":
        """Begin a hot verb at once, and end it whatever becomes of who waits for it."""
        alone = _alone(body)
        return self._begun(
            self._repeated(self._hot_connections, alone if only_reads else self._measured(alone, changes=False))
        )

    async def _written(self, body: Callable[[Pair], Awaitable[R]]) -> R:
        """Run an ordinary write in a transaction. It takes the locks that it needs: see `store.locks`."""

        async def write(pair: Pair) -> R:
            async with pair.transaction():
                await pair.raw.execute(f"SELECT pg_advisory_xact_lock_shared({WRITE_LOCK})")
                return await body(pair)

        return await asyncio.shield(self._begun(self._repeated(self._writers, self._measured(write))))

    async def _transacted(self, body: Callable[[Pair], Awaitable[R]]) -> R:
        """Run a verb in a transaction beside all other writes, which need not wait for its connection either."""

        async def write(pair: Pair) -> R:
            async with pair.transaction():
                return await body(pair)

        return await asyncio.shield(self._begun(self._repeated(self._readers, self._measured(write))))

    def _looked(self, body: Callable[[Pair], Awaitable[R]]) -> Awaitable[R]:
        """Run statements that only read, each for itself."""
        return self._repeated(self._readers, _alone(body), again_when_lost=True)

    def _measured(
        self, body: Callable[[Pair], Awaitable[R]], *, changes: bool = True
    ) -> Callable[[Pair], Awaitable[R]]:
        """A verb that writes, with its transactions noted. Without `changes`, it may have changed nothing."""

        async def measured(pair: Pair) -> R:
            began = time.monotonic_ns()
            try:
                result = await body(pair)
            except DRIVER_ERRORS as error:
                self.measures.failed += 1
                trouble = trouble_of(error)
                if trouble is not None:
                    self.health.note_failed_write(trouble, error)
                raise
            if changes:
                self.health.note_write()
            self.measures.commits.observe((time.monotonic_ns() - began) // 1000)
            self.measures.writes += 1
            return result

        return measured

    def _begun(self, work: Coroutine[Any, Any, R]) -> "asyncio.Task[R]":
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # Whoever waited for it may be gone.

    async def _repeated(
        self, connections: Connections, body: Callable[[Pair], Awaitable[R]], *, again_when_lost: bool = False
    ) -> R:
        """Run a verb on one of the connections, once more where another transaction was in the way."""
        repeats = 0
        while True:
            try:
                async with connections.taken() as pair:
                    return await body(pair)
            except DRIVER_ERRORS as error:
                again = is_repeatable(error) or (again_when_lost and repeats == 0 and is_lost(error))
                if not again or repeats == REPEATS_MAX:
                    raise translated(error) from error
            repeats += 1
            # By chance, so that two that stood in each other's way do not do so again.
            await asyncio.sleep(random.uniform(0, REPEAT_WAIT_MS_MAX * repeats) / 1000)  # noqa: S311


def _alone(body: Callable[[Pair], Awaitable[R]]) -> Callable[[Pair], Awaitable[R]]:
    """A verb that is one statement, which comes to one connection whole."""

    async def alone(pair: Pair) -> R:
        async with pair.alone():
            return await body(pair)

    return alone


async def _end(raw: Raw) -> None:
    """End a transaction that has changed nothing, where there still is one to end."""
    with contextlib.suppress(*DRIVER_ERRORS):
        await raw.execute("ROLLBACK")
