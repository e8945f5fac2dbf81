"""The PostgreSQL engine: implements `store.contract.Database` for processes that share a database."""

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
    ConnectionPool,
    Opener,
    Pair,
    Raw,
    RolledBack,
    is_connection_lost,
    is_retryable,
    store_error,
    trouble_of,
)
from uplift_server.store.postgres.group_commit import GroupCommit, Groups, Results
from uplift_server.store.postgres.held import release_held
from uplift_server.store.postgres.lease import due_endpoints, lease_due, next_due, reclaim, release
from uplift_server.store.postgres.partitions import PostgresPartitions
from uplift_server.store.postgres.replay import read_replay_batch, release_replay
from uplift_server.store.postgres.settle import settle
from uplift_server.store.postgres.stream_position import SELECT_POSITION, StreamPositionFinder
from uplift_server.store.replays import Replay, ReplaySelection
from uplift_server.store.stream_position import StreamPosition

R = TypeVar("R")

_log = structlog.get_logger()

UNKNOWN: Final = "the stream position is not known yet, because a write transaction is taking several seconds"
HOT_CONNECTIONS: Final = 4
READERS: Final = 3
WRITERS: Final = 3
"""Number of connections for ordinary writes.

While two writes wait for the lock on one account, the third connection is still free.
"""
CONNECTIONS_MAX: Final = HOT_CONNECTIONS + READERS + WRITERS + 2
"""Number of connections per process. It includes one connection for priority reads and one for notifications."""
READS_WAITING_MAX: Final = 256
HOT_WAITING_MAX: Final = 256
READ_MS_MAX: Final = 4000
POSITION_READS_MAX: Final = 5
POSITION_EVERY_MS: Final = 4
FIRST_POSITION_EVERY_MS: Final = 40
FIRST_POSITION_MS_MAX: Final = 2000
UNKNOWN_LOGGED_EVERY_S: Final = 60.0
VACUUM_S_MAX: Final = 6 * 3600
"""The maximum duration of a VACUUM statement. Without it, a lost connection could stop all erasures forever."""
RETRIES_MAX: Final = 8
"""Maximum number of retries for an operation after a deadlock or serialization failure."""
RETRY_WAIT_MS_MAX: Final = 20
WRITE_LOCK: Final = 0x75706C696674
"""The advisory lock that all ordinary writes share.

During an upgrade, servers that run release 0.1.2 or earlier can run alongside this one. Their writes take this lock
exclusively and use no other locks.
"""


_WITH_CONTENT: Final = (
    "events", "attempts", "endpoints", "notices", "replays", "audit_log", "listen_answers", "erasures",
    "rejected_events", "trace_parents",
)  # fmt: skip
VACUUM: Final = (
    *(f"VACUUM {table}" for table in _WITH_CONTENT),
    # Also clean the index, because it contains the keys.
    "VACUUM (INDEX_CLEANUP ON) idempotency_keys",
)
"""The VACUUM statements that `scrub` runs. They block neither reads nor writes."""


class PostgresDatabase:
    """The PostgreSQL engine of one process."""

    def __init__(self, url: str) -> None:
        opener = Opener(url)
        self._maintenance_opener = Opener(url, no_timeouts=True)
        hot_opener = Opener(url, settings=HOT_SETTINGS)
        self._hot_connections = ConnectionPool(hot_opener.pair, limit=HOT_CONNECTIONS, waiting_max=HOT_WAITING_MAX)
        self._readers = ConnectionPool(opener.pair, limit=READERS, waiting_max=READS_WAITING_MAX)
        self._priority_readers = ConnectionPool(opener.pair, limit=1, waiting_max=READS_WAITING_MAX)
        self._writers = ConnectionPool(opener.pair, limit=WRITERS, waiting_max=WRITES_WAITING_MAX)
        self._group_commit = GroupCommit(self._store)
        self._position_finder = StreamPositionFinder()
        self._position_lock = asyncio.Lock()
        self._position_read_at = 0.0
        """When the latest reading of the stream position began (monotonic seconds)."""
        self._unknown_logged_at = -UNKNOWN_LOGGED_EVERY_S
        self._running: set[asyncio.Task[Any]] = set()
        self._settling: asyncio.Task[frozenset[tuple[int, int]]] | None = None
        """The task of the latest `settle` call. `release_replay` waits until this task has ended."""
        self.measures = StoreCounters()
        self.health = StoreHealth()
        self.partitions: Partitions | None = PostgresPartitions(
            self._run_write, self._run_beside_writes, self._run_reads
        )

    @property
    def writes_waiting(self) -> int:
        """The number of this process's operations whose transaction has not begun."""
        return self._group_commit.waiting + self._hot_connections.waiting + self._writers.waiting

    async def open(self) -> None:
        """Connect to the database, whose schema must exist. Raises Unavailable."""
        await self.read(lambda c: c.exec_driver_sql("SELECT 1").scalar())

    async def close(self) -> None:
        """Wait for running operations and disconnect."""
        await self._group_commit.finish()
        while self._running:
            await asyncio.wait(self._running)
        for pool in (self._hot_connections, self._readers, self._priority_readers, self._writers):
            await pool.close()

    def append(self, groups: Sequence[Sequence[NewEvent]]) -> Awaitable[list[list[Appended] | IdempotencyConflict]]:
        """Store events with their deliveries in one durable commit. Return one result per group, in group order."""
        return self._group_commit.append(groups)

    def lease_due(
        self, requests: Sequence[LeaseRequest], *, now: int, lease_until: int, process_id: int, body_bytes_max: int
    ) -> Awaitable[list[LeasedDelivery]]:
        """For each request, lease up to `limit` due deliveries of the endpoint, earliest due time first."""
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
        """Write attempt outcomes and endpoint health."""
        self._settling = self._hot(lambda pair: settle(pair.raw, settlements, health, process_id=process_id))
        return self._settling

    def release(self, leases: Sequence[tuple[int, int, int]], *, now: int) -> Awaitable[None]:
        """Release unused leases (event number, endpoint number, fence), and make their deliveries due at `now`."""
        return self._hot(lambda pair: release(pair.raw, leases, now=now))

    def reclaim(self, *, now: int, process_id: int | None = None, limit: int = 1000) -> Awaitable[int]:
        """Release up to `limit` leases: expired leases, or the leases of one process. Return their number."""
        return self._hot(lambda pair: reclaim(pair.raw, now=now, process_id=process_id, limit=limit))

    def release_held(self, requests: Sequence[HeldRequest], *, now: int) -> Awaitable[list[Released]]:
        """Make held deliveries due at `now`, oldest events first. Return one result per request, in request order."""
        return self._hot(lambda pair: release_held(pair.raw, requests, now=now))

    def release_replay(
        self, replay_seq: int, choice: ReplaySelection, ahead: ReplayBatch, lease: ReplayLease
    ) -> Awaitable[ReplayRelease]:
        """Release the next deliveries of a replay for one attempt each. Lease those without an order group.

        First, wait for the latest settlement, which can free capacity for the replay.
        """
        release = self._measured(_as_statement(lambda pair: release_replay(pair.raw, replay_seq, choice, ahead, lease)))
        settling = self._settling

        async def released() -> ReplayRelease:
            if settling is not None:
                await asyncio.wait([settling])
            return await self._with_retries(self._hot_connections, release)

        return self._start(released())

    async def read_replay_batch(
        self, replay: Replay, *, first: int, rows: int, limit: int, body_bytes_max: int
    ) -> ReplayBatch:
        """Read the next deliveries of a replay."""
        return await self._hot(
            lambda pair: read_replay_batch(
                pair.raw, replay, first=first, rows=rows, limit=limit, body_bytes_max=body_bytes_max
            ),
            is_read=True,
        )

    async def due_endpoints(self, *, after: int = 0, limit: int = 1000) -> list[DueEndpoint]:
        """List endpoints with waiting deliveries, sorted by number, each with its earliest due time."""
        return await self._hot(
            lambda pair: due_endpoints(pair.raw, after=after, limit=limit),
            is_read=True,
        )

    def next_due(self, endpoint_seqs: Sequence[int]) -> Awaitable[list[DueEndpoint]]:
        """Return the earliest due time for each endpoint in `endpoint_seqs` that has waiting deliveries."""
        return self._hot(lambda pair: next_due(pair.raw, endpoint_seqs), is_read=True)

    async def scrub(self) -> bool:
        """Vacuum all tables that contain event content, to remove dead rows. Raises Unavailable."""
        try:
            raw = await self._maintenance_opener.raw()
            try:
                for statement in VACUUM:
                    await raw.execute(statement, timeout=VACUUM_S_MAX)
            finally:
                raw.terminate()
        except DRIVER_ERRORS as error:
            raise store_error(error) from error
        return True

    async def stream_position(self) -> StreamPosition:
        """Return the stream position. Later reads see all rows with numbers up to this position.

        Wait a few milliseconds for running transactions. If no position is known yet, wait for up to
        FIRST_POSITION_MS_MAX, then raise Unavailable.
        """
        began = time.monotonic()
        target = await self._read_position()
        reads = 0
        while True:
            known = self._position_finder.stream_position
            if known is not None and (reads >= POSITION_READS_MAX or all(map(ge, known, target))):
                return known
            if known is None and 1000 * (time.monotonic() - began) > FIRST_POSITION_MS_MAX:
                self._log_unknown()
                raise Unavailable(UNKNOWN)
            await asyncio.sleep((POSITION_EVERY_MS if reads < POSITION_READS_MAX else FIRST_POSITION_EVERY_MS) / 1000)
            await self._read_position()
            reads += 1

    def _log_unknown(self) -> None:
        if time.monotonic() - self._unknown_logged_at >= UNKNOWN_LOGGED_EVERY_S:
            self._unknown_logged_at = time.monotonic()
            _log.warning("stream position unknown", cause=UNKNOWN)

    async def _read_position(self) -> StreamPosition:
        """Read the last number of each sequence, and the list of transactions that can still insert rows.

        Return the last numbers. If another call begins such a read after this call starts, use the result of that read.
        """

        async def read(pair: Pair) -> None:
            async with pair.statement_scope():
                row = await pair.raw.fetchrow(SELECT_POSITION)
            assert row is not None
            *numbers, holders = row
            self._position_finder.note(StreamPosition(*numbers), holders)

        asked_at = time.monotonic()
        # Allow one reading at a time. Otherwise, a delayed reading could report outdated locks after a newer reading.
        async with self._position_lock:
            # A reading that began while this call waited for the lock is recent enough.
            if asked_at >= self._position_read_at:
                began = time.monotonic()
                await self._with_retries(self._readers, read, retry_if_lost=True)
                self._position_read_at = began
            return self._position_finder.given

    async def read(self, body: Callable[[Connection], R]) -> R:
        """Run a function that only reads. All its reads use one consistent snapshot."""
        return await self._read(self._readers, body)

    async def read_with_priority(self, body: Callable[[Connection], R]) -> R:
        """Run a function that only reads, like `read`, but on a connection that API callers do not use."""
        return await self._read(self._priority_readers, body)

    async def _read(self, pool: ConnectionPool, body: Callable[[Connection], R]) -> R:
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

        async def run() -> R:
            try:
                result = await self._with_retries(pool, read, retry_if_lost=True)
            except (Unavailable, Rejected) as error:
                self.health.note_failed_read(name, trouble_of(error.__cause__ or error), error)
                raise
            self.health.note_read(name)
            return result

        reading = self._start(run())
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            # Do not wait until PostgreSQL notices the cancellation.
            reading.cancel()
            raise

    async def write(self, body: Callable[[Connection], R]) -> R:
        """Run a function in a transaction. If the function raises an exception, roll back its changes."""
        return await self._run_write(lambda pair: pair.sql.run_sync(body))

    async def write_with_events(self, body: Callable[[Connection], tuple[R, Sequence[NewEvent]]]) -> R:
        """Run a function that returns events, and store the events in the same transaction."""

        async def write(pair: Pair) -> R:
            result, events = await pair.sql.run_sync(body)
            await append_events(pair.raw, [events])
            return result

        return await self._run_write(write)

    async def append_then(self, event: NewEvent, body: Callable[[Connection, int], R]) -> R:
        """Store an event without an idempotency key, and run a function with the event number, in one transaction."""

        async def append(pair: Pair) -> R:
            ((appended,),) = await append_events(pair.raw, [[event]])  # type: ignore[misc]
            return await pair.sql.run_sync(body, appended.seq)

        return await self._run_write(append)

    async def _store(self, groups: Groups) -> Results:
        append = self._measured(lambda pair: append_events(pair.raw, groups, pair.statement_scope))
        return await self._with_retries(self._hot_connections, append)

    def _hot(self, body: Callable[[Pair], Awaitable[R]], *, is_read: bool = False) -> "asyncio.Task[R]":
        """Start an operation on the hot path. The operation continues even if its caller is cancelled."""
        operation = _as_statement(body)
        return self._start(
            self._with_retries(
                self._hot_connections, operation if is_read else self._measured(operation, changes=False)
            )
        )

    async def _run_write(self, body: Callable[[Pair], Awaitable[R]]) -> R:
        """Run an ordinary write in a transaction. `body` must take the locks for its rows (see `store.locks`)."""

        async def write(pair: Pair) -> R:
            async with pair.transaction():
                await pair.raw.execute(f"SELECT pg_advisory_xact_lock_shared({WRITE_LOCK})")
                return await body(pair)

        return await asyncio.shield(self._start(self._with_retries(self._writers, self._measured(write))))

    async def _run_beside_writes(self, body: Callable[[Pair], Awaitable[R]]) -> R:
        """Run a long transaction on a connection for reads, so that ordinary writes do not wait for the transaction."""

        async def write(pair: Pair) -> R:
            async with pair.transaction():
                return await body(pair)

        return await asyncio.shield(self._start(self._with_retries(self._readers, self._measured(write))))

    def _run_reads(self, body: Callable[[Pair], Awaitable[R]]) -> Awaitable[R]:
        """Run statements that only read. Each statement is its own transaction."""
        return self._with_retries(self._readers, _as_statement(body), retry_if_lost=True)

    def _measured(
        self, body: Callable[[Pair], Awaitable[R]], *, changes: bool = True
    ) -> Callable[[Pair], Awaitable[R]]:
        """Wrap a write to measure its duration and record its success or failure.

        With `changes=False`, a success does not count as proof that the database accepts writes.
        """

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
            ended = time.monotonic_ns()
            self.measures.note_commit((ended - began) // 1000, ended / 1e9)
            self.measures.writes += 1
            return result

        return measured

    def _start(self, work: Coroutine[Any, Any, R]) -> "asyncio.Task[R]":
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._finish)
        return task

    def _finish(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Retrieve the error. Otherwise, asyncio logs it if the caller was cancelled.
            task.exception()

    async def _with_retries(
        self, pool: ConnectionPool, body: Callable[[Pair], Awaitable[R]], *, retry_if_lost: bool = False
    ) -> R:
        """Run an operation on a connection from a pool, and repeat it after a deadlock or serialization failure.

        Also repeat the operation once after RolledBack, or, with `retry_if_lost`, after any loss of the connection.
        """
        retries = 0
        while True:
            try:
                async with pool.acquire() as pair:
                    return await body(pair)
            except DRIVER_ERRORS as error:
                is_lost = isinstance(error, RolledBack) or (retry_if_lost and is_connection_lost(error))
                can_retry = is_retryable(error) or (is_lost and retries == 0)
                if not can_retry or retries == RETRIES_MAX:
                    raise store_error(error) from error
            retries += 1
            # Wait for a random time, so that two transactions do not collide again.
            await asyncio.sleep(random.uniform(0, RETRY_WAIT_MS_MAX * retries) / 1000)  # noqa: S311


def _as_statement(body: Callable[[Pair], Awaitable[R]]) -> Callable[[Pair], Awaitable[R]]:
    """Wrap a single-statement operation so that it runs in its connection's statement scope."""

    async def run(pair: Pair) -> R:
        async with pair.statement_scope():
            return await body(pair)

    return run


async def _end(raw: Raw) -> None:
    """Roll back a read-only transaction."""
    with contextlib.suppress(*DRIVER_ERRORS):
        await raw.execute("ROLLBACK")
