"""Reader threads, each with a read-only connection. Each read uses one short snapshot."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import sqlalchemy as sa
import structlog

from uplift_server.observe.store_health import StoreHealth
from uplift_server.store.errors import Unavailable
from uplift_server.store.sqlite.connection import bound, connect, trouble_of, unavailable
from uplift_server.store.sqlite.file_watch import FileWatch

R = TypeVar("R")

READERS: Final = 2
READ_SECONDS_MAX: Final = 4.0
READS_WAITING_MAX: Final = 256
LONG_READ_MS: Final = 100
"""The minimum duration in ms of a read that the server logs as slow.

Reads for pages and API calls should take less time.
"""
_INSTRUCTIONS_BETWEEN_CHECKS: Final = 20_000
_log = structlog.get_logger()


class Readers:
    """Runs read-only functions on reader threads. Each function may take up to READ_SECONDS_MAX."""

    def __init__(self, path: Path, watch: FileWatch, health: StoreHealth) -> None:
        self._path = path
        self._watch = watch
        self._health = health
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._priority_pool = ThreadPoolExecutor(1, thread_name_prefix="store-priority-reader")
        self._waiting = 0
        self._opened: list[tuple[sqlite3.Connection, sa.Connection]] = []

    async def read(self, body: Callable[[sqlite3.Connection, sa.Connection], R], name: str) -> R:
        """Run a function whose reads all use one consistent snapshot. `name` is the name of the read in the log.

        Raises Unavailable if too many reads are waiting, or if the function takes too long.
        """
        if self._waiting >= READS_WAITING_MAX:
            raise Unavailable("too many reads are waiting for the database")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, body, name)
        finally:
            self._waiting -= 1

    async def read_with_priority(self, body: Callable[[sqlite3.Connection, sa.Connection], R], name: str) -> R:
        """Run a function like `read`, but on a thread that API callers do not use.

        Raises Unavailable if the function takes too long.
        """
        return await asyncio.get_running_loop().run_in_executor(self._priority_pool, self._run, body, name)

    def close(self) -> None:
        """Wait for the running reads and close the connections. This call blocks."""
        for pool in (self._pool, self._priority_pool):
            pool.shutdown(wait=True, cancel_futures=True)
        for pair in self._opened:
            _close(pair)

    def _run(self, body: Callable[[sqlite3.Connection, sa.Connection], R], name: str) -> R:
        try:
            raw, sql = self._connection()
            began = time.monotonic()
            stop_at = began + READ_SECONDS_MAX
            raw.set_progress_handler(lambda: time.monotonic() > stop_at, _INSTRUCTIONS_BETWEEN_CHECKS)
            raw.execute("BEGIN")
            try:
                result = body(raw, sql)
            finally:
                with contextlib.suppress(sqlite3.Error):
                    raw.execute("COMMIT")
                took_ms = round((time.monotonic() - began) * 1000)
                if took_ms >= LONG_READ_MS:
                    _log.info("slow read", read=name, duration_ms=took_ms)
            self._health.note_read(name)
            return result
        except (sqlite3.Error, sa.exc.DBAPIError, Unavailable) as error:
            self._health.note_failed_read(name, trouble_of(error), error)
            if isinstance(error, Unavailable):
                raise
            if getattr(getattr(error, "orig", error), "sqlite_errorcode", 0) != sqlite3.SQLITE_INTERRUPT:
                self._discard()
            raise unavailable(error) from error

    def _discard(self) -> None:
        """Close the connection of this thread after an error. The next read opens a new connection."""
        pair = getattr(self._local, "pair", None)
        if pair is not None:
            self._local.pair = None
            self._opened.remove(pair)
            _close(pair)

    def _connection(self) -> tuple[sqlite3.Connection, sa.Connection]:
        pair: tuple[sqlite3.Connection, sa.Connection] | None = getattr(self._local, "pair", None)
        if pair is None:
            self._watch.check()
            raw = connect(self._path, read_only=True)
            self._local.pair = pair = (raw, bound(raw))
            self._opened.append(pair)
        return pair


def _close(pair: tuple[sqlite3.Connection, sa.Connection]) -> None:
    raw, sql = pair
    with contextlib.suppress(sqlite3.Error, sa.exc.DBAPIError):
        sql.close()
    raw.close()
