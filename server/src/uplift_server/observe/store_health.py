"""Whether a database takes reads and writes, as its engine notes from real traffic."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

WRITE_STALLED_S: Final = 3.0
"""How long a transaction may run. A SQLite connection waits 2 s for a lock of another program."""
WRITE_FAILED_S: Final = 5.0
"""How long a failed write counts at least: on a disk that is nearly full, small writes succeed between larger ones."""
READ_FAILED_S: Final = 60.0
"""How long a failed read counts that has not succeeded since."""
LOG_EVERY_S: Final = 60.0
"""How often the log names a failure that lasts."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a database does not do its work."""

    cause: str
    """A clause without the words of a driver: anyone may read it."""
    how_to_fix: str


class StoreHealth:
    """The latest outcomes. Written by the threads of an engine, read by the event loop."""

    def __init__(self) -> None:
        self.written_at = float("-inf")
        """When the latest transaction that changed something was committed (monotonic, s)."""
        self.writing_since: float | None = None
        """Since when the present transaction runs (monotonic, s)."""
        self.writer_ended = False
        """Whether there is no thread that writes at present."""
        self._write: tuple[float, Trouble] | None = None
        """The latest failed write, until another one succeeds."""
        self._reads: dict[str, tuple[float, Trouble]] = {}
        self._logged: dict[str, float] = {}
        self._told: set[str] = set()
        """Failures in the log whose end is not in it yet."""

    def note_write(self) -> None:
        """A transaction that changed something was committed."""
        self.written_at = time.monotonic()
        if self._write is not None and self.written_at - self._write[0] >= WRITE_FAILED_S:
            self._write = None
            if self._is_told(""):
                _log.warning("database writes recovered")

    def note_failed_write(self, trouble: Trouble, error: BaseException) -> None:
        """The database did not take a transaction."""
        self._write = (time.monotonic(), trouble)
        if self._is_to_be_logged(""):
            _log.error("database write failed", cause=trouble.cause, error=str(error))

    def note_read(self, name: str) -> None:
        """A read succeeded."""
        if self._reads and self._reads.pop(name, None) is not None and self._is_told(name):
            _log.warning("database read recovered", read=name)

    def note_failed_read(self, name: str, trouble: Trouble | None, error: BaseException) -> None:
        """A read failed. Without a trouble it is the read that is at fault, not the database."""
        if trouble is not None:
            self._reads[name] = (time.monotonic(), trouble)
        if self._is_to_be_logged(name):
            _log.error("database read failed", read=name, cause=trouble and trouble.cause, error=str(error))

    def has_written_within(self, seconds: float) -> bool:
        """Whether something was committed so lately, and nothing has failed since."""
        return self._write is None and time.monotonic() - self.written_at < seconds

    def trouble(self) -> str | None:
        """What is wrong and how to fix it, as far as it is known; None: nothing."""
        now = time.monotonic()
        since = self.writing_since
        if self.writer_ended:
            return "The thread that writes to the database ended. It restarts by itself; the log names the cause."
        if since is not None and now - since > WRITE_STALLED_S:
            return f"A write to the database has not finished for {now - since:.0f} s. Check its disk."
        failed = self._write
        if failed is not None:
            return f"Writes to the database fail: {failed[1].cause}. {failed[1].how_to_fix}"
        for at, trouble in list(self._reads.values()):
            if now - at < READ_FAILED_S:
                return f"Reads of the database fail: {trouble.cause}. {trouble.how_to_fix}"
        return None

    def _is_to_be_logged(self, key: str) -> bool:
        now = time.monotonic()
        if now - self._logged.get(key, float("-inf")) < LOG_EVERY_S:
            return False
        self._logged[key] = now
        self._told.add(key)
        return True

    def _is_told(self, key: str) -> bool:
        told = key in self._told
        self._told.discard(key)
        return told


def name_of(verb: Callable[..., object]) -> str:
    """The name of a read in the log: the function, or the place of one without a name."""
    return f"{verb.__module__.removeprefix('uplift_server.')}.{verb.__qualname__.partition('.<locals>')[0]}"
