"""SQLite in memory without threads: every statement runs on the event loop, so that a seed always plays the same way.

All databases of a process share one connection, because SQLAlchemy compiles statements once per connection.
"""

import asyncio
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import sqlalchemy as sa

from uplift_server.observe.counters import StoreCounters
from uplift_server.observe.store_health import StoreHealth
from uplift_server.store import schema_version
from uplift_server.store.hot_records import NewEvent
from uplift_server.store.sqlite import SqliteDatabase
from uplift_server.store.sqlite.append import Appender
from uplift_server.store.sqlite.connection import CACHED_STATEMENTS, bound
from uplift_server.store.sqlite.writer import Job, Writer, _resolve

from .clock import START


class InlineExecutor(ThreadPoolExecutor):
    """Runs functions immediately on the calling thread."""

    def submit(self, fn: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


@cache
def _template() -> sqlite3.Connection:
    """Return an empty database with all tables."""
    template = sqlite3.connect(":memory:")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        schema_version.upgrade(path, now_ms=START)
        connection = sqlite3.connect(path)
        # A database in memory has no write-ahead log.
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.backup(template)
        connection.close()
    return template


class _Connection:
    """The only connection, as the writer uses it."""

    def __init__(self) -> None:
        self.raw = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False, cached_statements=CACHED_STATEMENTS
        )
        self.sql: sa.Connection = bound(self.raw)
        self.appender: Appender

    def reset(self) -> None:
        """Empty the database."""
        _template().backup(self.raw)
        self.appender = Appender(self.raw)

    def close(self) -> None:
        """Do nothing: the next database uses the connection too."""


@cache
def _connection() -> _Connection:
    return _Connection()


class _InlineWriter(Writer):
    """Commits all jobs of one turn of the event loop together, at the beginning of the next turn."""

    def __init__(self, connection: _Connection, measures: StoreCounters) -> None:
        self._measures = measures
        self._health = StoreHealth()
        self._loop = asyncio.get_running_loop()
        self._guarded_waiting = 0
        self._unresolved = set()
        self._closing = False
        self._writing = connection  # type: ignore[assignment]
        self._queue = SimpleQueue()
        self._backlog = deque()
        self._was_large = False
        self._is_scheduled = False

    def submit(self, body: Callable[[Any], Any], **options: Any) -> "asyncio.Future[Any]":
        self._schedule()
        return super().submit(body, **options)

    def append(self, groups: Sequence[Sequence[NewEvent]]) -> "asyncio.Future[Any]":
        self._schedule()
        return super().append(groups)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        while not self._queue.empty():
            job = self._queue.get_nowait()
            assert isinstance(job, Job)
            self._backlog.append(job)
        while self._backlog:
            jobs = self._take()
            self._commit(jobs)
            _resolve(jobs)

    def close(self) -> None:
        self._closing = True


class _InlineReaders:
    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def read(self, body: Callable[[sqlite3.Connection, sa.Connection], Any], name: str) -> Any:
        del name
        return body(self._connection.raw, self._connection.sql)

    read_with_priority = read

    def close(self) -> None:
        """Do nothing."""


class MemoryDatabase(SqliteDatabase):
    """The SQLite engine on a database in memory."""

    def __init__(self) -> None:
        self._writer_ = None
        self._readers_ = None
        self.measures = StoreCounters()
        self.health = StoreHealth()
        self.partitions = None

    async def open(self) -> None:
        connection = _connection()
        connection.reset()
        self._writer_ = _InlineWriter(connection, self.measures)
        self._readers_ = _InlineReaders(connection)  # type: ignore[assignment]

    async def close(self) -> None:
        self._writer_ = self._readers_ = None

    async def scrub(self) -> bool:
        return True
