"""The SQLite engine: implements `store.contract.Database` for a single process."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from uplift_server.observe.counters import StoreCounters
from uplift_server.observe.store_health import StoreHealth, name_of
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
from uplift_server.store.replays import Replay, ReplaySelection
from uplift_server.store.sqlite import copying
from uplift_server.store.sqlite.connection import FileLock, connect, empty_log, unavailable
from uplift_server.store.sqlite.file_watch import FileChange, FileWatch
from uplift_server.store.sqlite.held import release_held
from uplift_server.store.sqlite.lease import due_endpoints, lease_due, next_due, reclaim, release
from uplift_server.store.sqlite.readers import Readers
from uplift_server.store.sqlite.replay import read_replay_batch, release_replay
from uplift_server.store.sqlite.settle import settle
from uplift_server.store.sqlite.writer import Writer, WriterConnection
from uplift_server.store.stream_position import STREAM_POSITION_MAX, StreamPosition

R = TypeVar("R")


class SqliteDatabase:
    """The SQLite engine of one process, on one database file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path)
        self._writer_: Writer | None = None
        self._readers_: Readers | None = None
        self._spare: sqlite3.Connection | None = None
        self._watch: FileWatch
        self._is_rescued = False
        self.measures = StoreCounters()
        self.health = StoreHealth()
        self.partitions: Partitions | None = None

    @property
    def writes_waiting(self) -> int:
        """The number of this process's operations whose transaction has not begun."""
        return 0 if self._writer_ is None else self._writer_.waiting

    def lock(self) -> None:
        """Lock the file against other processes until `close`. Call this method before `open`.

        Raises InUse, Misaddressed or Unavailable.
        """
        self._lock.acquire()

    async def open(self) -> None:
        """Connect to the database, whose schema must exist. Raises Unavailable."""
        self._lock.hold_database()
        # Open the spare connection now, because a new connection cannot read the file after it is lost.
        self._spare = connect(self._path, read_only=True)
        self._spare.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self._watch = FileWatch(self._path)
        self._writer_ = Writer(self._path, self._watch, asyncio.get_running_loop(), self.measures, self.health)
        self._readers_ = Readers(self._path, self._watch, self.health)

    async def close(self) -> None:
        """Wait for running operations and disconnect."""
        loop = asyncio.get_running_loop()
        if self._readers_ is not None:
            await loop.run_in_executor(None, self._readers_.close)
            self._readers_ = None
        if self._spare is not None:
            self._spare.close()
            self._spare = None
        if self._writer_ is not None:
            await loop.run_in_executor(None, self._writer_.close)
            self._writer_ = None
        if self._is_rescued:
            self._watch.remove_log()
        self._lock.release()

    async def change(self) -> FileChange | None:
        """Return the harmful change to the database file since `open`, if any. The check runs in another thread."""
        return await asyncio.to_thread(self._watch.change)

    async def rescue(self, now_ms: int) -> Path:
        """Copy the open database into the directory of its lost file.

        Return the path of the copy. Raises Unavailable.
        """
        assert self._spare is not None, "the database is not open"
        timestamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        target = self._path.with_name(f"{self._path.name}.rescued-{timestamp}")
        try:
            await asyncio.to_thread(copying.save, self._spare, target)
        except (sqlite3.Error, OSError) as error:
            raise unavailable(error) from error
        self._is_rescued = True
        return target

    @property
    def _writer(self) -> Writer:
        assert self._writer_ is not None, "the database is not open"
        return self._writer_

    @property
    def _readers(self) -> Readers:
        assert self._readers_ is not None, "the database is not open"
        return self._readers_

    def append(self, groups: Sequence[Sequence[NewEvent]]) -> Awaitable[list[list[Appended] | IdempotencyConflict]]:
        """Store events with their deliveries in one durable commit. Return one result per group, in group order."""
        return self._writer.append(groups)

    def lease_due(
        self, requests: Sequence[LeaseRequest], *, now: int, lease_until: int, process_id: int, body_bytes_max: int
    ) -> Awaitable[list[LeasedDelivery]]:
        """For each request, lease up to `limit` due deliveries of the endpoint, earliest due time first."""
        return self._writer.submit(
            lambda w: lease_due(
                w.raw, requests, now=now, lease_until=lease_until, process_id=process_id, body_bytes_max=body_bytes_max
            ),
            weight=sum(request.limit for request in requests),
        )

    def settle(
        self,
        settlements: Sequence[Settlement],
        health: Sequence[HealthRow] = (),
        *,
        process_id: int = 0,
    ) -> Awaitable[frozenset[tuple[int, int]]]:
        """Write attempt outcomes and endpoint health."""
        return self._writer.submit(
            lambda w: settle(w.raw, settlements, health, process_id=process_id), weight=len(settlements), divisible=True
        )

    def release(self, leases: Sequence[tuple[int, int, int]], *, now: int) -> Awaitable[None]:
        """Release unused leases (event number, endpoint number, fence), and make their deliveries due at `now`."""
        return self._writer.submit(lambda w: release(w.raw, leases, now=now), weight=len(leases))

    def reclaim(self, *, now: int, process_id: int | None = None, limit: int = 1000) -> Awaitable[int]:
        """Release up to `limit` leases: expired leases, or the leases of one process. Return their number."""
        return self._writer.submit(lambda w: reclaim(w.raw, now=now, process_id=process_id, limit=limit))

    def release_held(self, requests: Sequence[HeldRequest], *, now: int) -> Awaitable[list[Released]]:
        """Make held deliveries due at `now`, oldest events first. Return one result per request, in request order."""
        return self._writer.submit(
            lambda w: release_held(w.raw, requests, now=now), weight=sum(request.limit for request in requests)
        )

    def release_replay(
        self, replay_seq: int, choice: ReplaySelection, ahead: ReplayBatch, lease: ReplayLease
    ) -> Awaitable[ReplayRelease]:
        """Release deliveries of a running replay for one attempt each. Lease those without an order group.

        First, release the deliveries that were returned to the replay without an attempt. Then release the deliveries
        of the batch `ahead`.
        """
        return self._writer.submit(
            lambda w: release_replay(w.raw, replay_seq, choice, ahead, lease), weight=lease.limit, guarded=True
        )

    async def read_replay_batch(
        self, replay: Replay, *, first: int, rows: int, limit: int, body_bytes_max: int
    ) -> ReplayBatch:
        """Read the next deliveries of a replay."""
        return await self._readers.read(
            lambda raw, _: read_replay_batch(
                raw, replay, first=first, rows=rows, limit=limit, body_bytes_max=body_bytes_max
            ),
            name_of(read_replay_batch),
        )

    async def due_endpoints(self, *, after: int = 0, limit: int = 1000) -> list[DueEndpoint]:
        """List endpoints with waiting deliveries, sorted by number, each with its earliest due time."""
        return await self._readers.read_with_priority(
            lambda raw, _: due_endpoints(raw, after=after, limit=limit), name_of(due_endpoints)
        )

    def next_due(self, endpoint_seqs: Sequence[int]) -> Awaitable[list[DueEndpoint]]:
        """Return the earliest due time for each endpoint in `endpoint_seqs` that has waiting deliveries.

        The query runs on the writer thread, so that delivery retries do not wait for API callers' reads.
        """
        return self._writer.submit(lambda w: next_due(w.raw, endpoint_seqs))

    async def scrub(self) -> bool:
        """Write the write-ahead log into the database file, and truncate the log.

        Return False if a read still needs the log. Raises Unavailable.
        """
        return await asyncio.to_thread(empty_log, self._path)

    async def stream_position(self) -> StreamPosition:
        """Return the stream position. Later reads see all rows with numbers up to this position.

        On SQLite, the stream position always includes all rows.
        """
        return STREAM_POSITION_MAX

    async def read(self, body: Callable[[Connection], R]) -> R:
        """Run a function that only reads. All its reads use one consistent snapshot."""
        return await self._readers.read(lambda _, sql: body(sql), name_of(body))

    async def read_with_priority(self, body: Callable[[Connection], R]) -> R:
        """Run a function that only reads, like `read`, but on a thread that API callers do not use."""
        return await self._readers.read_with_priority(lambda _, sql: body(sql), name_of(body))

    async def write(self, body: Callable[[Connection], R]) -> R:
        """Run a function in a transaction. If the function raises an exception, roll back its changes."""
        result: R = await self._writer.submit(lambda w: body(w.sql), guarded=True)
        return result

    async def write_with_events(self, body: Callable[[Connection], tuple[R, Sequence[NewEvent]]]) -> R:
        """Run a function that returns events, and store the events in the same transaction."""

        def write(writing: WriterConnection) -> R:
            result, events = body(writing.sql)
            writing.appender.append([events])
            return result

        written: R = await self._writer.submit(write, guarded=True)
        return written

    async def append_then(self, event: NewEvent, body: Callable[[Connection, int], R]) -> R:
        """Store an event without an idempotency key, and run a function with the event number, in one transaction."""

        def append(writing: WriterConnection) -> R:
            seq = writing.appender.next_seq
            writing.appender.append([[event]])
            return body(writing.sql, seq)

        written: R = await self._writer.submit(append, guarded=True)
        return written
