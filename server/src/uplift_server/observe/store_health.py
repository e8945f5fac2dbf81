"""The health of the database, based on the results of reads and writes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

WRITE_STALLED_S: Final = 3.0
"""The duration above which a running transaction counts as stalled, in seconds.

The duration is longer than the 2 s that a SQLite connection waits for a lock that another program holds.
"""
WRITE_FAILED_S: Final = 5.0
"""The minimum time between a failed write and the successful write that ends the failure, in seconds.

A success before this time does not end the failure: on a nearly full disk, small writes succeed, but large ones fail.
"""
READ_FAILED_S: Final = 60.0
"""How long a failed read counts as a database failure, in seconds.

The failure ends earlier if the same read succeeds. If the database was unreachable, any successful read ends the
failure.
"""
LOG_EVERY_S: Final = 60.0
"""The interval at which the log repeats the message about a continuing failure, in seconds."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Trouble:
    """The cause of failed reads or writes, and the text that explains how to fix it."""

    cause: str
    """The cause as a clause.

    It contains no text from the database driver, because API callers without a key can read it.
    """
    how_to_fix: str
    is_unreachable: bool = False
    """Whether the database did not respond."""


class StoreHealth:
    """The results of the latest reads and writes.

    Storage engine threads record the results, and the event loop reads them.
    """

    def __init__(self) -> None:
        self.written_at = float("-inf")
        """When the latest transaction that changed rows was committed (monotonic seconds)."""
        self.writing_since: float | None = None
        """When the current transaction began (monotonic seconds). None if no transaction is running."""
        self.writer_ended = False
        """Whether the writer thread has ended and has not been restarted."""
        self._write: tuple[float, Trouble] | None = None
        """The time and cause of the latest failed write. None once a write succeeds WRITE_FAILED_S or more later."""
        self._reads: dict[str, tuple[float, Trouble]] = {}
        self._logged: dict[str, float] = {}
        self._unrecovered: set[str] = set()
        """The names of logged failures whose recovery has not been logged."""

    def note_write(self) -> None:
        """Record the commit of a transaction that changed rows."""
        self.written_at = time.monotonic()
        if self._write is not None and self.written_at - self._write[0] >= WRITE_FAILED_S:
            self._write = None
            if self._was_logged(""):
                _log.warning("database writes recovered")

    def note_failed_write(self, trouble: Trouble, error: BaseException) -> None:
        """Record a failed transaction."""
        self._write = (time.monotonic(), trouble)
        if self._should_log(""):
            _log.error("database write failed", cause=trouble.cause, error=str(error))

    def note_read(self, name: str) -> None:
        """Record a successful read. `name` identifies the read."""
        if not self._reads:
            return
        recovered = [each for each, (_, trouble) in list(self._reads.items()) if each == name or trouble.is_unreachable]
        for each in recovered:
            if self._reads.pop(each, None) is not None and self._was_logged(each):
                _log.warning("database reads recovered", read=each)

    def note_failed_read(self, name: str, trouble: Trouble | None, error: BaseException) -> None:
        """Record a failed read. If `trouble` is None, the query caused the failure, not the database."""
        if trouble is not None:
            self._reads[name] = (time.monotonic(), trouble)
        if self._should_log(name):
            _log.error("database read failed", read=name, cause=trouble and trouble.cause, error=str(error))

    def has_written_within(self, seconds: float) -> bool:
        """Return whether a transaction was committed in the last `seconds` seconds and writes are not failing."""
        return self._write is None and time.monotonic() - self.written_at < seconds

    def trouble(self) -> str | None:
        """Return the cause of current read or write failures and how to fix them, or None if there are no failures."""
        now = time.monotonic()
        since = self.writing_since
        if self.writer_ended:
            return (
                "The thread that writes to the database failed. The server is restarting it. See the log for the cause."
            )
        if since is not None and now - since > WRITE_STALLED_S:
            return f"A database write has been running for {now - since:.0f} s. Check the database's disk."
        failed = self._write
        if failed is not None:
            return f"Database writes are failing: {failed[1].cause}. {failed[1].how_to_fix}"
        for at, trouble in list(self._reads.values()):
            if now - at < READ_FAILED_S:
                return f"Database reads are failing: {trouble.cause}. {trouble.how_to_fix}"
        return None

    def _should_log(self, key: str) -> bool:
        now = time.monotonic()
        if now - self._logged.get(key, float("-inf")) < LOG_EVERY_S:
            return False
        self._logged[key] = now
        self._unrecovered.add(key)
        return True

    def _was_logged(self, key: str) -> bool:
        logged = key in self._unrecovered
        self._unrecovered.discard(key)
        return logged


def name_of(function: Callable[..., object]) -> str:
    """Return the name under which the log shows a function that reads from the database.

    For a nested function or a lambda, return the name of the outermost function that contains it.
    """
    return f"{function.__module__.removeprefix('uplift_server.')}.{function.__qualname__.partition('.<locals>')[0]}"
