"""The writer: a thread that commits queued jobs together.

Under higher load, each transaction contains more jobs, and each statement more rows. After a transaction with a large
job, the small jobs in the queue run first. A transaction contains only a few writes of API requests, so that these
writes do not delay events and deliveries.

The event loop supervises the thread. If the thread fails, every waiting job fails and a new thread starts.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final, cast

import sqlalchemy as sa
import structlog

from uplift_server.core.events.commit_rows import commit_rows
from uplift_server.core.limits import COMMIT_ROWS_MAX, COMMIT_WRITES_MAX, SMALL_JOB_ROWS_MAX, WRITES_WAITING_MAX
from uplift_server.core.scheduling.commit_interval import commit_interval_ms
from uplift_server.observe.counters import StoreCounters
from uplift_server.observe.store_health import StoreHealth
from uplift_server.store.errors import Rejected, StoreError, Unavailable
from uplift_server.store.hot_records import NewEvent
from uplift_server.store.sqlite.append import Appender
from uplift_server.store.sqlite.connection import bound, connect, trouble_of, unavailable
from uplift_server.store.sqlite.file_watch import FileWatch

_log = structlog.get_logger()

# The connection stays usable after these errors. After any other error, the writer opens a new connection.
_HARMLESS: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CONSTRAINT}


RESTART_WAIT_SECONDS: Final = 0.5
"""The time until a failed thread is replaced, in seconds."""
CPU_SAMPLE_SECONDS: Final = 0.1
"""The interval between two measurements of the process's CPU time, in seconds."""


class _CommitThrottle:
    """Limits the commit rate while the process uses a lot of CPU time (`core.scheduling.commit_interval`)."""

    def __init__(self) -> None:
        self._sampled_at = self._began_at = time.monotonic()
        self._used_s = time.process_time()
        self._interval_s = 0.0

    def wait(self) -> None:
        """Wait until the next commit may begin."""
        now = time.monotonic()
        if now - self._sampled_at >= CPU_SAMPLE_SECONDS:
            used_s = time.process_time()
            self._interval_s = commit_interval_ms((used_s - self._used_s) / (now - self._sampled_at)) / 1000
            self._sampled_at, self._used_s = now, used_s
        wait_s = self._began_at + self._interval_s - now
        if wait_s > 0:
            time.sleep(wait_s)
            now += wait_s
        self._began_at = now


class WriterConnection:
    """The writer thread's connection. All jobs of a transaction use this connection."""

    __slots__ = ("appender", "raw", "sql")

    def __init__(self, path: Path) -> None:
        self.raw = connect(path, read_only=False)
        self.sql: sa.Connection = bound(self.raw)
        try:
            self.appender = Appender(self.raw)
        except sqlite3.Error as error:
            self.close()
            raise unavailable(error) from error

    def close(self) -> None:
        """Close the connection."""
        self.sql.close()
        self.raw.close()


class Job:
    """A job for the writer, with the future for its result.

    `weight` is the approximate number of rows. A `guarded` job has a savepoint, so that an exception rolls back only
    this job. If the database rejects a `divisible` job, the caller receives Rejected and can repeat parts of the job.
    """

    __slots__ = ("divisible", "error", "future", "guarded", "result", "weight")

    def __init__(self, future: asyncio.Future[Any], weight: int, *, guarded: bool, divisible: bool) -> None:
        self.future = future
        self.weight = weight
        self.guarded = guarded
        self.divisible = divisible
        self.result: Any = None
        self.error: BaseException | None = None


class FunctionJob(Job):
    """A job that calls a function with the writer's connection."""

    __slots__ = ("body",)

    def __init__(
        self,
        body: Callable[[WriterConnection], Any],
        future: asyncio.Future[Any],
        weight: int,
        *,
        guarded: bool,
        divisible: bool,
    ) -> None:
        super().__init__(future, weight, guarded=guarded, divisible=divisible)
        self.body = body


class AppendJob(Job):
    """A job that stores groups of events. Its result is a list with one result for each group."""

    __slots__ = ("groups",)

    def __init__(self, groups: Sequence[Sequence[NewEvent]], future: asyncio.Future[Any]) -> None:
        rows = sum(commit_rows(len(event.deliveries), len(event.body)) for group in groups for event in group)
        super().__init__(future, rows, guarded=False, divisible=True)
        self.groups = groups


class Writer:
    """Owns the connection for writes, and runs queued jobs on the writer thread."""

    def __init__(
        self,
        path: Path,
        watch: FileWatch,
        loop: asyncio.AbstractEventLoop,
        measures: StoreCounters,
        health: StoreHealth,
    ) -> None:
        self._path = path
        self._watch = watch
        self._measures = measures
        self._health = health
        self._loop = loop
        self._guarded_waiting = 0
        self._unresolved: set[asyncio.Future[Any]] = set()
        self._closing = False
        self._writing: WriterConnection | None = WriterConnection(path)
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._backlog: deque[Job] = deque()
        """Jobs that the thread has taken from the queue, oldest first."""
        self._was_large = False
        """Whether the last transaction contained a large job."""
        self._thread = self._new_thread()
        self._thread.start()

    def submit(
        self,
        body: Callable[[WriterConnection], Any],
        *,
        weight: int = 1,
        guarded: bool = False,
        divisible: bool = False,
    ) -> asyncio.Future[Any]:
        """Queue a function. The future resolves on the event loop after the transaction is durable or has failed.

        Raises Unavailable if too many guarded jobs are waiting. The caller must limit the number of jobs that are not
        guarded.
        """
        if guarded and self._guarded_waiting >= WRITES_WAITING_MAX:
            raise Unavailable("too many writes are waiting for the database")
        future = self._new_future()
        if guarded:
            self._guarded_waiting += 1
            future.add_done_callback(self._guarded_done)
        self._queue.put(FunctionJob(body, future, weight, guarded=guarded, divisible=divisible))
        return future

    def append(self, groups: Sequence[Sequence[NewEvent]]) -> asyncio.Future[Any]:
        """Queue groups of events to store.

        The future resolves to a list with one result for each group, after the transaction is durable or has failed.
        """
        future = self._new_future()
        self._queue.put(AppendJob(groups, future))
        return future

    def _new_future(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._unresolved.add(future)
        future.add_done_callback(self._unresolved.discard)
        return future

    def _guarded_done(self, _future: asyncio.Future[Any]) -> None:
        self._guarded_waiting -= 1

    @property
    def waiting(self) -> int:
        """The number of jobs that wait for their transaction."""
        return self._queue.qsize() + len(self._backlog)

    def close(self) -> None:
        """Commit all queued jobs and end the thread. This call blocks."""
        self._closing = True
        self._queue.put(None)
        self._thread.join()

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._supervised, name="store-writer", daemon=True)

    def _supervised(self) -> None:
        try:
            self._run()
        except BaseException as error:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._recover, error)

    def _recover(self, error: BaseException) -> None:
        """Fail all unfinished jobs, because the failed thread may have lost some of them. Start a new thread later."""
        _log.critical("database writer failed", waiting_writes=len(self._unresolved), exc_info=error)
        self._health.writer_ended, self._health.writing_since = True, None
        writing, self._writing = self._writing, None
        if writing is not None:
            with contextlib.suppress(Exception):
                writing.close()
        self._queue, self._backlog = queue.SimpleQueue(), deque()
        for future in list(self._unresolved):
            if not future.done():
                future.set_exception(Unavailable("the thread that writes to the database failed"))
        self._loop.call_later(RESTART_WAIT_SECONDS, self._restart)

    def _restart(self) -> None:
        if self._closing:
            return
        thread = self._new_thread()
        try:
            thread.start()
        except RuntimeError as error:  # the system does not allow more threads
            _log.critical("database writer not started", cause=str(error))
            self._loop.call_later(RESTART_WAIT_SECONDS, self._restart)
        else:
            self._thread = thread
            self._health.writer_ended = False

    def _run(self) -> None:
        throttle = _CommitThrottle()
        closing = False
        while not closing or self._backlog:
            if not self._backlog:
                job = self._queue.get()
                if job is None:
                    break
                self._backlog.append(job)
            throttle.wait()
            with contextlib.suppress(queue.Empty):
                while not closing:
                    job = self._queue.get_nowait()
                    if job is None:
                        closing = True
                    else:
                        self._backlog.append(job)
            jobs = self._take()
            began = time.monotonic_ns()
            self._health.writing_since = time.monotonic()
            self._commit(jobs)
            self._health.writing_since = None
            ended = time.monotonic_ns()
            self._measures.note_commit((ended - began) // 1000, ended / 1e9)
            self._measures.writes += len(jobs)
            self._loop.call_soon_threadsafe(_resolve, jobs)
        if self._writing is not None:
            self._writing.close()

    def _take(self) -> list[Job]:
        """Take the jobs for the next transaction from the backlog, oldest first.

        Jobs that would exceed a limit stay in the backlog. If the last transaction had a large job and the backlog has
        small jobs, take only small jobs.
        """
        jobs: list[Job] = []
        left: list[Job] = []
        small_only = self._was_large and any(job.weight <= SMALL_JOB_ROWS_MAX for job in self._backlog)
        rows = writes = 0
        while self._backlog and rows < COMMIT_ROWS_MAX:
            job = self._backlog.popleft()
            if (
                (small_only and job.weight > SMALL_JOB_ROWS_MAX)
                # Changes by API requests do not count as rows here, so that a job of the maximum size still fits.
                or (jobs and rows + job.weight > COMMIT_ROWS_MAX + writes)
                or (job.guarded and writes >= COMMIT_WRITES_MAX)
            ):
                left.append(job)
                continue
            jobs.append(job)
            rows += job.weight
            writes += job.guarded
        self._backlog.extendleft(reversed(left))
        self._was_large = any(job.weight > SMALL_JOB_ROWS_MAX for job in jobs)
        return jobs

    def _commit(self, jobs: list[Job]) -> None:
        """Run the jobs in one transaction.

        If a job raises its own exception or violates a constraint, only this job fails. After any other database error
        or a MemoryError, all jobs fail.
        """
        try:
            self._transaction(jobs)
        except (sqlite3.IntegrityError, sqlite3.DataError) as error:
            self._isolate(jobs, error)
        except (Unavailable, sqlite3.DatabaseError, MemoryError) as error:
            self._fail(jobs, error)
        except Exception as error:
            self._isolate(jobs, error)

    def _isolate(self, jobs: list[Job], error: Exception) -> None:
        """Run each half of the jobs in a separate transaction. In the end, each job that causes an error fails alone.

        With n jobs, each such job costs up to log2(n) additional commits.
        """
        if len(jobs) > 1:
            half = len(jobs) // 2
            self._commit(jobs[:half])
            self._commit(jobs[half:])
            return
        self._measures.failed += 1
        [job] = jobs
        if not isinstance(error, sqlite3.Error):
            job.error = error
            return
        job.error = Rejected(f"the database rejected the operation: {error}") if job.divisible else unavailable(error)
        if self._writing is not None:
            # Skip these event numbers: rows that still have one of them would also conflict with later events.
            self._writing.appender.next_seq += job.weight

    def _fail(self, jobs: list[Job], error: Exception) -> None:
        self._measures.failed += 1
        trouble = trouble_of(error)
        if trouble is not None:
            self._health.note_failed_write(trouble, error)
        reason = error
        if not isinstance(error, StoreError):
            reason = unavailable(error)
            # The CLI commands derive their advice and exit code from the cause.
            reason.__cause__ = error
        for job in jobs:
            job.error = reason
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in _HARMLESS and self._writing is not None:
            with contextlib.suppress(sqlite3.Error):
                self._writing.close()
            self._writing = None

    def _transaction(self, jobs: list[Job]) -> None:
        if self._writing is None:
            self._watch.check()
            self._writing = WriterConnection(self._path)
        writing = self._writing
        raw = writing.raw
        next_seq, changes = writing.appender.next_seq, raw.total_changes
        raw.execute("BEGIN IMMEDIATE")
        try:
            for kind, run in groupby(jobs, key=type):
                if kind is AppendJob:
                    _store_together(cast("list[AppendJob]", list(run)), writing)
                else:
                    _run_functions(cast("Iterator[FunctionJob]", run), writing)
            raw.execute("COMMIT")
            # A transaction without changes does not access the disk, so it does not prove that writes succeed.
            if raw.total_changes != changes:
                self._health.note_write()
        except BaseException:
            writing.appender.next_seq = next_seq
            with contextlib.suppress(sqlite3.Error):
                if raw.in_transaction:
                    raw.execute("ROLLBACK")
            raise


def _store_together(jobs: Sequence[AppendJob], writing: WriterConnection) -> None:
    """Use the same statements to store the events from several jobs."""
    results = iter(writing.appender.append([group for job in jobs for group in job.groups]))
    for job in jobs:
        job.error = None
        job.result = list(islice(results, len(job.groups)))


def _run_functions(jobs: Iterator[FunctionJob], writing: WriterConnection) -> None:
    for job in jobs:
        job.error = None
        if job.guarded:
            _run_guarded(job, writing)
        else:
            job.result = job.body(writing)


def _run_guarded(job: FunctionJob, writing: WriterConnection) -> None:
    """Run a job with a savepoint. If the job raises an exception, roll back only this job.

    After a database error, the whole transaction fails.
    """
    raw, next_seq = writing.raw, writing.appender.next_seq
    raw.execute("SAVEPOINT job")
    try:
        job.result = job.body(writing)
    except (sqlite3.Error, MemoryError):
        raise
    except sa.exc.DBAPIError as error:
        # SQLAlchemy wraps the driver's error. Raise the driver's error, which determines how the transaction fails.
        if isinstance(error.orig, Exception):
            raise error.orig from error
        raise
    except Exception as error:
        job.error = error
        writing.appender.next_seq = next_seq
        raw.execute("ROLLBACK TO job")
    raw.execute("RELEASE job")


def _resolve(jobs: list[Job]) -> None:
    for job in jobs:
        if job.future.done():  # the caller was cancelled
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)
