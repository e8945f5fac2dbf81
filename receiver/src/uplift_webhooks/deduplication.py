"""Handle each event once, despite repeats, concurrency, reordering and crashes.

>>> seen = SqliteDeduplicator("webhooks.db")        # doctest: +SKIP
>>> with seen.first_time(event.id) as first:        # doctest: +SKIP
...     if first:
...         handle(event)

The deduplicator stores the event's ID when the block ends without an error. Until then, the block claims the event:
other handlers of the event get EventInProgress and make the sender retry. If they responded with 2xx and the first
handler failed, the event would be lost. An error in the block releases the claim. After a crash, the claim expires. In
both cases, the next attempt counts as the first. Every event is handled at least once. An event is handled twice only
if the claim expires before the block ends, after a crash between the end of your work and the end of the block, or if
the deduplicator no longer has the event's ID.
"""

import hashlib
import os
import sqlite3
import threading
import time
import uuid
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, TypeVar

from uplift_webhooks.event import Event

T = TypeVar("T")
REMEMBER_SECONDS: Final = 45 * 86_400.0
"""Default time for which the deduplicator stores the ID of a handled event, in seconds.

This time is longer than the default retry schedule (3 days) and the default retention (30 days). The server cannot
replay an event after its retention has ended.
"""
CLAIM_SECONDS: Final = 60.0
"""Default duration of a claim, in seconds.

This time is longer than the sender's timeout of 15 seconds, but short enough for a retry after a crash to succeed.
"""
ENTRIES_MAX: Final = 1_000_000
"""Default maximum number of entries in a MemoryDeduplicator. Each entry takes about 300 bytes.

The least recently used entries are removed first.
"""
BUSY_SECONDS: Final = 10.0
"""Maximum time to wait for other writers to the same SQLite file, in seconds."""
_FORGOTTEN_AT_A_TIME: Final = 10
_KEY_CHARACTERS_MAX: Final = 256
_INTEGER_MAX: Final = 2**63 - 1

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS uplift_seen (
    key TEXT PRIMARY KEY, created INTEGER, event TEXT, until REAL NOT NULL, claim TEXT, claimed_until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uplift_seen_until ON uplift_seen (until);
"""


class EventInProgress(Exception):
    """Another thread or process is handling this event, or an event about the same object.

    Respond with 409, so that the sender retries this event. A `Retry-After` header with 503 or 429 would also delay all
    other events. The other handler's claim expires after at most `retry_after_seconds`.
    """

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        return f"Another handler is processing this event. Retry after {self.retry_after_seconds:.0f} seconds."


def _bounded(text: str) -> str:
    """Return a string unchanged, or its digest if the string is long or not ASCII."""
    if len(text) <= _KEY_CHARACTERS_MAX and text.isascii():
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_Version = tuple[int, str]
"""An event's `created` and ID, which define the order of events about the same object."""
_ANY: Final[_Version] = (0, "")


@dataclass(frozen=True, slots=True)
class _Entry:
    """The stored state of a key, such as an event ID. Times are Unix seconds."""

    handled: _Version | None
    """The newest event with this key that was handled, or None."""
    until: float
    """Time after which the entry can be removed."""
    claim: str | None
    claimed_until: float


class Claim:
    """A context manager for the block that handles one event.

    The variable after `as` is True if the block must handle the event. Entering the block can raise EventInProgress.
    """

    def __init__(self, deduplicator: "Deduplicator", key: str, version: _Version, *, skips: bool = False) -> None:
        self._deduplicator: Final = deduplicator
        self._key: Final = key
        self._version: Final = version
        self._skips: Final = skips
        self._token: Final = uuid.uuid4().hex
        self._claimed = False

    def __bool__(self) -> NoReturn:
        """Raise TypeError for `if seen.first_time(…):`, which would always be true."""
        raise TypeError(
            "The result of first_time() is not a boolean. Use a with statement: `with seen.first_time(event.id) as "
            "first:`, then `if first:`."
        )

    def __enter__(self) -> bool:
        """Claim the event. Return False if the block must not handle it."""
        if self._skips:
            return False
        self._claimed = self._deduplicator._begin(self._key, self._version, self._token)  # noqa: SLF001 - same module
        return self._claimed

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Store the event as handled. After an error, release the claim instead."""
        if self._claimed:
            self._claimed = False
            self._deduplicator._end(self._key, self._version, self._token, done=kind is None)  # noqa: SLF001 - same module


class Deduplicator(ABC):
    """Base class of deduplicators, which store handled events. Thread-safe. The `with` block can contain `await`."""

    def __init__(self, remember_seconds: float, claim_seconds: float) -> None:
        """`remember_seconds` is the retention period of a handled event. `claim_seconds` is the duration of a claim.

        Raises ValueError unless both arguments are positive.
        """
        if not (remember_seconds > 0 and claim_seconds > 0):
            raise ValueError("remember_seconds and claim_seconds must be greater than 0.")
        self._remember_seconds: Final = remember_seconds
        self._claim_seconds: Final = claim_seconds

    def first_time(self, event_id: str) -> Claim:
        """Return the context manager for a block that handles one event: `with seen.first_time(event.id) as first:`."""
        return Claim(self, f"event:{_bounded(event_id)}", _ANY)

    def newest(self, event: Event, key: str | None = None, *, include_tests: bool = False) -> Claim:
        """Return a context manager for a block that handles an event unless the event is outdated.

        >>> with seen.newest(event) as newest:          # doctest: +SKIP
        ...     if newest:
        ...         handle(event)

        The variable after `as` is False for a repeat, and for an event older than a handled event about the same
        object. Events are ordered by `created`, then by ID: the order in which one server process accepted them. `key`
        identifies the object. The default is the string or integer at `data.object.id`, such as a session ID. Without
        an object ID, the method works like `first_time`. Two events about one object are never handled at the same
        time.

        For a test event, the variable is False and the deduplicator stores nothing, unless `include_tests` is set. A
        test event has example data, whose ID can be the ID of a real object.
        """
        skips = event.test and not include_tests
        if key is None:
            subject = event.data.get("object") if isinstance(event.data, dict) else None
            found = subject.get("id") if isinstance(subject, dict) else None
            key = str(found) if isinstance(found, str | int) and not isinstance(found, bool) and found != "" else None
        if key is None and not skips:
            return self.first_time(event.id)
        created = min(max(event.created, -_INTEGER_MAX), _INTEGER_MAX)
        return Claim(self, f"newest:{_bounded(key or '')}", (created, _bounded(event.id)), skips=skips)

    @abstractmethod
    def close(self) -> None:
        """Release the deduplicator's resources."""

    @abstractmethod
    def _change(self, key: str, change: Callable[[_Entry | None], tuple[_Entry | None, T]]) -> T:
        """Replace a key's entry atomically. Return the result of the change.

        `change` returns two values: the new entry (None removes the entry) and the result.
        """

    def _begin(self, key: str, version: _Version, token: str) -> bool:
        now = time.time()

        def change(entry: _Entry | None) -> tuple[_Entry | None, bool | float]:
            if entry is None or entry.until <= now:
                entry = _Entry(None, 0, None, 0)
            if entry.handled is not None and entry.handled >= version:
                return entry, False
            ends = now + self._claim_seconds
            if entry.claim is not None and entry.claimed_until > now:
                # A claim that ends later than `ends` comes from a process whose clock is ahead.
                # Shorten the claim, because that process may have crashed.
                ends = min(entry.claimed_until, ends)
                return replace(entry, claimed_until=ends), ends - now
            return _Entry(entry.handled, max(entry.until, ends), token, ends), True

        found = self._change(key, change)
        if not isinstance(found, bool):
            raise EventInProgress(found)
        return found

    def _end(self, key: str, version: _Version, token: str, *, done: bool) -> None:
        until = time.time() + self._remember_seconds

        def change(entry: _Entry | None) -> tuple[_Entry | None, None]:
            # Remember the event as handled, even if another handler has claimed it after this claim expired.
            entry = entry or _Entry(None, 0, None, 0)
            if entry.claim == token:
                entry = replace(entry, claim=None)
            if done and (entry.handled is None or entry.handled < version):
                entry = replace(entry, handled=version, until=max(entry.until, until))
            return (None if entry.handled is None and entry.claim is None else entry), None

        self._change(key, change)


class MemoryDeduplicator(Deduplicator):
    """Stores handled events in the memory of this process.

    Use it for tests, or for one process that rarely restarts.
    """

    def __init__(
        self,
        *,
        remember_seconds: float = REMEMBER_SECONDS,
        claim_seconds: float = CLAIM_SECONDS,
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        """`remember_seconds` is the retention period of a handled event. `claim_seconds` is the duration of a claim.

        If there are more than `entries_max` entries, the least recently used entries are removed. Raises ValueError
        unless all arguments are positive.
        """
        super().__init__(remember_seconds, claim_seconds)
        if entries_max <= 0:
            raise ValueError("entries_max must be greater than 0.")
        self._entries_max: Final = entries_max
        self._entries: Final[dict[str, _Entry]] = {}
        self._lock: Final = threading.Lock()

    def close(self) -> None:
        """Remove all entries from memory."""
        with self._lock:
            self._entries.clear()

    def _change(self, key: str, change: Callable[[_Entry | None], tuple[_Entry | None, T]]) -> T:
        with self._lock:
            # Move the entry to the end, so that the least recently used entries come first.
            before = self._entries.get(key)
            after, result = change(before)
            self._entries.pop(key, None)
            if after is not None:
                self._entries[key] = after
            while len(self._entries) > self._entries_max:
                del self._entries[next(iter(self._entries))]
            now = time.time()
            for old in list(_first(self._entries, _FORGOTTEN_AT_A_TIME)):
                if self._entries[old].until <= now:
                    del self._entries[old]
            return result


def _first(entries: dict[str, _Entry], count: int) -> list[str]:
    return [key for key, _ in zip(entries, range(count), strict=False)]


class SqliteDeduplicator(Deduplicator):
    """Stores handled events in a SQLite file that the processes on one machine share.

    The file stays consistent if a process crashes or forks. Recording an event takes about 100 µs. If the machine
    crashes, the most recent events can be handled again, because the file uses `synchronous=NORMAL`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        remember_seconds: float = REMEMBER_SECONDS,
        claim_seconds: float = CLAIM_SECONDS,
    ) -> None:
        """Open or create the file in an existing directory.

        `remember_seconds` is the retention period of a handled event. `claim_seconds` is the duration of a claim.

        Raises:
            ValueError: `remember_seconds` or `claim_seconds` is not positive.
            sqlite3.Error: the file cannot be used. Later calls may also raise this error.
        """
        super().__init__(remember_seconds, claim_seconds)
        self._path: Final = Path(path).absolute()
        self._lock: Final = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with self._lock:
            self._open().executescript(_SCHEMA)
        _open_files.add(self)

    def close(self) -> None:
        """Close the file. The next use of the deduplicator opens it again."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                _write_ahead(connection)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _begin_fork(self) -> None:
        """Wait until no thread uses the file, and close it until its next use.

        SQLite keeps the locks of a file in the memory of the process. If a child process inherited an open file, the
        child would also inherit this memory, but not the locks.
        """
        self._lock.acquire()
        self._drop()

    def _end_fork(self) -> None:
        """Let threads use the file again, in the parent or in the child."""
        self._lock.release()

    def _change(self, key: str, change: Callable[[_Entry | None], tuple[_Entry | None, T]]) -> T:
        with self._lock:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                row = connection.execute(
                    "SELECT created, event, until, claim, claimed_until FROM uplift_seen WHERE key = ?", (key,)
                ).fetchone()
                before = None if row is None else _entry(*row)
                after, result = change(before)
                if after is None:
                    connection.execute("DELETE FROM uplift_seen WHERE key = ?", (key,))
                elif after != before:
                    created, event = after.handled or (None, None)
                    connection.execute(
                        "INSERT OR REPLACE INTO uplift_seen VALUES (?, ?, ?, ?, ?, ?)",
                        (key, created, event, after.until, after.claim, after.claimed_until),
                    )
                    connection.execute(
                        "DELETE FROM uplift_seen WHERE key IN (SELECT key FROM uplift_seen WHERE until <= ? LIMIT ?)",
                        (time.time(), _FORGOTTEN_AT_A_TIME),
                    )
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result


def _entry(created: int | None, event: str, until: float, claim: str | None, claimed_until: float) -> _Entry:
    return _Entry(None if created is None else (created, event), until, claim, claimed_until)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Enable the write-ahead log, with retries. SQLite fails without waiting if several processes open a new file."""
    ends_at = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > ends_at:
                raise
        time.sleep(0.01)
    connection.execute("PRAGMA synchronous=NORMAL")


_open_files: Final[weakref.WeakSet[SqliteDeduplicator]] = weakref.WeakSet()
_fork_lock: Final = threading.Lock()
"""The lock of the thread that forks. It protects `_forking`."""
_forking: Final[list[SqliteDeduplicator]] = []


def _before_fork() -> None:
    _fork_lock.acquire()
    for deduplicator in list(_open_files):
        deduplicator._begin_fork()  # noqa: SLF001 - same module
        _forking.append(deduplicator)


def _after_fork() -> None:
    while _forking:
        _forking.pop()._end_fork()  # noqa: SLF001 - same module
    _fork_lock.release()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no forks
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
