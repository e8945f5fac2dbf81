"""Detects whether a running server's SQLite file was deleted, replaced or truncated.

If the server can still read the original file, it saves the data in a new file.
"""

import asyncio
import contextlib
from typing import Final

import structlog

from uplift_server.delivery.ports import Clock
from uplift_server.store.errors import Unavailable
from uplift_server.store.sqlite import SqliteDatabase
from uplift_server.store.sqlite.file_watch import FILE_CHECK_SECONDS, DatabaseLost, FileChange

RESCUE_SECONDS_MAX: Final = 300.0
LAST_CHECK_SECONDS: Final = 0.9
_HOW_TO_FIX: Final = "restore the database from a backup, then start the server"

_log = structlog.get_logger()


class DatabaseFile:
    """The SQLite file of this server. The file is lost if it was deleted, replaced or truncated."""

    def __init__(self, database: SqliteDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._change: FileChange | None = None
        self._is_unwatched = False
        self._has_ended = False
        """Whether `rescue` has ended."""
        self.lost: DatabaseLost | None = None
        """The error that reports that the file was deleted, replaced or truncated. None until the file is lost."""

    @property
    def rescue_seconds_max(self) -> float:
        """The maximum duration of `rescue` in seconds. It is 0 unless the file is lost and still readable.

        It is also 0 after `rescue` has ended.
        """
        is_needed = self._change is not None and self._change.is_readable and not self._has_ended
        return RESCUE_SECONDS_MAX if is_needed else 0

    async def wait_lost(self, stopped: asyncio.Event) -> None:
        """Check the file at intervals until it is lost, or until `stopped` is set."""
        while not await self._check() and not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), FILE_CHECK_SECONDS)

    async def rescue(self) -> None:
        """Save the content of a lost file, if this process can still read it."""
        if self._change is None:
            # Check again, because the file may have changed since the last check.
            try:
                async with asyncio.timeout(LAST_CHECK_SECONDS):
                    await self._check()
            except TimeoutError:
                _log.error("database file check failed", cause="timeout")
        change = self._change
        if change is None or not change.is_readable:
            return
        try:
            async with asyncio.timeout(RESCUE_SECONDS_MAX):
                saved = await self._database.rescue(self._clock.now_ms())
        except (TimeoutError, Unavailable) as error:
            _log.critical("database rescue failed", cause=str(error) or "timeout")
            return
        finally:
            self._has_ended = True
        _log.critical("database rescued", file=str(saved))
        self.lost = DatabaseLost(
            f"{change.text} while the server used it; the server saved all data in {saved}: rename that file to the"
            " database's name, then start the server"
        )

    async def _check(self) -> bool:
        """Return whether the file is lost. Return False if the file cannot be checked."""
        try:
            change = await self._database.change()
        except OSError as error:
            if not self._is_unwatched:
                _log.error("database file check failed", cause=str(error))
            self._is_unwatched = True
            return False
        self._is_unwatched = False
        if change is None:
            return False
        _log.critical("database file lost", cause=change.text)
        self._change = change
        self.lost = DatabaseLost(f"{change.text} while the server used it; {_HOW_TO_FIX}")
        return True
