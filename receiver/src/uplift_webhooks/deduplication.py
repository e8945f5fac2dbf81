"""Handling each event once, although it may arrive twice, at the same time, out of order, and amid crashes.

>>> seen = SqliteDeduplicator("webhooks.db")        # doctest: +SKIP
>>> with seen.first_time(event.id) as first:        # doctest: +SKIP
...     if first:
...         handle(event)

An event is remembered when the block ends without an error. Until then it is claimed: whoever gets the same event
meanwhile is told EventInProgress, and asks the sender to come again, because answering 2xx would lose the event if the
first one fails. If the block raises, the claim is given up; if the process dies, the claim runs out; either way the
sender's next attempt is the first again. So every event is handled at least once, and twice only after a crash between
the end of the handling and the end of the block.
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
"""Retries last three days, a disabled endpoint's deliveries may be sent much later, and events can be replayed for the
30 days for which they are kept."""
CLAIM_SECONDS: Final = 60.0
"""Longer than the 15 s the sender waits for an answer; soon enough for the retry after that of a crash."""
ENTRIES_MAX: Final = 1_000_000
"""What a MemoryDeduplicator holds, some 300 bytes each; the oldest go first."""
BUSY_SECONDS: Final = 10.0
"""How long a process waits for others that write the same file."""
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
    """Another thread or process is handling this event, or an event about the same thing, at this moment.

    Answer 409, so that this event is sent again; 503 or 429 with `Retry-After` would make the sender hold back all
    others, too. `retry_after_seconds` is when the other one's claim ends at the latest.
    """

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__(retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        """In words."""
        return f"The event is being handled already; ask again within {self.retry_after_seconds:.0f} s."


def _bounded(text: str) -> str:
    """A text as it is, or a digest where it is so long or so odd that a database might refuse it."""
    if len(text) <= _KEY_CHARACTERS_MAX and text.isascii():
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_Version = tuple[int, str]
"""An event's `created` and id: what orders events about the same thing."""
_ANY: Final[_Version] = (0, "")


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known under one key. Instants are Unix seconds."""

    handled: _Version | None
    """The newest version that was handled."""
    until: float
    """When all of it may be forgotten."""
    claim: str | None
    claimed_until: float


class Claim:
    """A block in which one event is handled. Entering it tells whether there is anything to do.

    Raises, when it is entered, EventInProgress.
    """

    def __init__(self, deduplicator: "Deduplicator", key: str, version: _Version) -> None:
        self._deduplicator: Final = deduplicator
        self._key: Final = key
        self._version: Final = version
        self._token: Final = uuid.uuid4().hex
        self._claimed = False

    def __bool__(self) -> NoReturn:
        """Refuse `if seen.first_time(…):`, which would be true always."""
        raise TypeError("Use it in a with statement: `with seen.first_time(event.id) as first:`, then `if first:`.")

    def __enter__(self) -> bool:
        """Claim the event: True if it is to be handled, False if it was."""
        self._claimed = self._deduplicator._begin(self._key, self._version, self._token)  # noqa: SLF001 - its own part
        return self._claimed

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remember the event, or, after an error, give the claim up."""
        if self._claimed:
            self._claimed = False
            self._deduplicator._end(self._key, self._version, self._token, done=kind is None)  # noqa: SLF001 - its own part


class Deduplicator(ABC):
    """What both kinds share. May be used by several threads, and in asyncio: a block may await."""

    def __init__(self, remember_seconds: float, claim_seconds: float) -> None:
        """Raises ValueError unless both are more than 0."""
        if not (remember_seconds > 0 and claim_seconds > 0):
            raise ValueError("remember_seconds and claim_seconds must be more than 0.")
        self._remember_seconds: Final = remember_seconds
        self._claim_seconds: Final = claim_seconds

    def first_time(self, event_id: str) -> Claim:
        """A block for one event: `with seen.first_time(event.id) as first:`."""
        return Claim(self, f"event:{_bounded(event_id)}", _ANY)

    def newest(self, event: Event, key: str | None = None) -> Claim:
        """A block for what an event is about: `with seen.newest(event) as newest:`, False for repeats and stale ones.

        Events about the same thing are ordered by `created`, then by id; once one was handled, none that is older is.
        The thing is named by `key`, or by the id in the event's data: that of the session, or of the athlete. Two
        events about one thing are never handled at the same time.
        """
        if key is None:
            subject = event.data.get("object") if isinstance(event.data, dict) else None
            found = subject.get("id") if isinstance(subject, dict) else None
            key = found if isinstance(found, str) and found else None
        if key is None:
            return self.first_time(event.id)
        created = min(max(event.created, -_INTEGER_MAX), _INTEGER_MAX)
        return Claim(self, f"newest:{_bounded(key)}", (created, _bounded(event.id)))

    @abstractmethod
    def close(self) -> None:
        """Let go of what it holds open."""

    @abstractmethod
    def _change(self, key: str, change: Callable[[_Entry | None], tuple[_Entry | None, T]]) -> T:
        """Replace what is known under a key by what `change` makes of it (None: forget it), and return its result.

        Nothing else changes the key meanwhile.
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
                # A later end is from a clock that was ahead, perhaps of a process that has died since.
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
            # The claim may have run out and be another's by now; what was handled was handled all the same.
            entry = entry or _Entry(None, 0, None, 0)
            if entry.claim == token:
                entry = replace(entry, claim=None)
            if done and (entry.handled is None or entry.handled < version):
                entry = replace(entry, handled=version, until=max(entry.until, until))
            return (None if entry.handled is None and entry.claim is None else entry), None

        self._change(key, change)


class MemoryDeduplicator(Deduplicator):
    """Remembers in this process only: for one process that is seldom restarted, and for tests."""

    def __init__(
        self,
        *,
        remember_seconds: float = REMEMBER_SECONDS,
        claim_seconds: float = CLAIM_SECONDS,
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        """Raises ValueError for a number that is not more than 0."""
        super().__init__(remember_seconds, claim_seconds)
        if entries_max <= 0:
            raise ValueError("entries_max must be more than 0.")
        self._entries_max: Final = entries_max
        self._entries: Final[dict[str, _Entry]] = {}
        self._lock: Final = threading.Lock()

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def _change(self, key: str, change: Callable[[_Entry | None], tuple[_Entry | None, T]]) -> T:
        with self._lock:
            # Taken out and put back at the end, so that those nobody asked for are at the beginning.
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
    """Remembers in a file that the processes of one machine share, in the table `uplift_seen`.

    A process may die at any moment; forked processes may go on with it. Claiming and remembering take some 100 µs
    together. The file is in WAL mode, with `synchronous=NORMAL`: when the machine (not the process) goes down, the last
    events may be handled once more.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        remember_seconds: float = REMEMBER_SECONDS,
        claim_seconds: float = CLAIM_SECONDS,
    ) -> None:
        """Open or make the file; its directory must exist.

        Raises:
            ValueError: a number is not more than 0.
            sqlite3.Error: the file cannot be used. Every later use may raise it, too.
        """
        super().__init__(remember_seconds, claim_seconds)
        self._path: Final = Path(path).absolute()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        with self._lock:
            self._open().executescript(_SCHEMA)
        _FORKING.add(self)

    def close(self) -> None:
        """Close the file. A later use opens it again."""
        with self._lock:
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

    def _forked(self) -> None:
        """In a forked process: SQLite forbids to use, and even to close, what the parent has opened."""
        if self._connection is not None:
            _INHERITED.append(self._connection)
        self._connection = None
        self._lock = threading.Lock()

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
    """Set the modes of a connection. Where several processes open a new file at once, SQLite fails without waiting."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
    connection.execute("PRAGMA synchronous=NORMAL")


_INHERITED: Final[list[object]] = []
"""Connections of a parent process, kept from the garbage collector, which would close them."""
_FORKING: Final[weakref.WeakSet[SqliteDeduplicator]] = weakref.WeakSet()


def _after_fork() -> None:
    for deduplicator in _FORKING:
        deduplicator._forked()  # noqa: SLF001 - its own part


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no forks
    os.register_at_fork(after_in_child=_after_fork)
