"""Connections to the database file, the lock against other processes, and error conversion."""

import contextlib
import errno
import fcntl
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.observe.store_health import Trouble
from uplift_server.store.errors import InUse, Misaddressed, Unavailable

WRITER_CACHE_KIB: Final = 64 * 1024
READER_CACHE_KIB: Final = 8 * 1024
# Measured: smaller checkpoints stall commits more often, and larger ones stall commits longer.
# Checkpoints of 4000 pages gave the lowest p99.
CHECKPOINT_PAGES: Final = 4000
WAL_BYTES_KEPT: Final = 64 * 1024 * 1024
BUSY_MS: Final = 2000
EMPTY_LOG_MS_MAX: Final = 100
# The driver's statement cache has room for the 13 hot statements (`ManyRows`), each in 67 sizes (`many_rows.SIZES`).
CACHED_STATEMENTS: Final = 1024
_UNWRITABLE: Final = Trouble(
    "the server cannot open or write the database file", "Check the permissions of the file and of its directory."
)
_LOCKED: Final = Trouble(
    "another program has locked the database file",
    "Stop that program. To find it, run `fuser` with the path of the file.",
)
_DAMAGED: Final = Trouble(
    "the database file is damaged", "Stop the server, run `uplift-server doctor`, and restore a backup."
)
_TROUBLES: Final = {
    sqlite3.SQLITE_FULL: Trouble("the disk is full", "Free space on the disk of the database."),
    sqlite3.SQLITE_IOERR: Trouble("the disk reports I/O errors", "Check the disk of the database."),
    sqlite3.SQLITE_NOMEM: Trouble("the server has too little memory", "Increase the memory of the server."),
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: _UNWRITABLE,
    sqlite3.SQLITE_PERM: _UNWRITABLE,
    sqlite3.SQLITE_CANTOPEN: _UNWRITABLE,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
"""Database problems by SQLite's primary result code.

Any other code means that the statement, not the database, caused the error.
"""
_LOCK: Final = re.compile(rb"\d{0,20}\n?")
"""The content of a lock file: the operating system ID of the last process that held the lock."""
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_NOTHING: Final[dict[None, None]] = {}

# The driver binds only str, int and float directly.
# For other types without an adapter, the driver first looks for two methods, which is slower than binding the value.
sqlite3.register_adapter(bytes, bytes)
sqlite3.register_adapter(type(None), _NOTHING.get)
for _codes in (Status, Trigger, FailedReason, Outcome):
    sqlite3.register_adapter(_codes, int)
_HOW_TO_FIX_LOCK: Final = "delete this file while no server is running; the next start creates a new one"


def connect(path: Path, *, read_only: bool, create: bool = False) -> sqlite3.Connection:
    """Connect to a database file in autocommit mode, so that the caller controls transactions. Raises Unavailable.

    Create a missing file only if `create` is set, because an empty file would hide the loss of a database.
    """
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=CACHED_STATEMENTS,
            timeout=BUSY_MS / 1000,
        )
        cache = READER_CACHE_KIB if read_only else WRITER_CACHE_KIB
        # With `synchronous = FULL`, each commit waits for the disk. Otherwise, a power failure could lose commits.
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            f"cache_size = -{cache}",
            "temp_store = MEMORY",
            # The default depends on how SQLite was built. Deleted personal data must not stay in the file.
            "secure_delete = ON",
            f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
            f"journal_size_limit = {WAL_BYTES_KEPT}",
            f"query_only = {int(read_only)}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        connection.create_function("lower_unicode", 1, str.lower, deterministic=True)
    except sqlite3.Error as error:
        raise unavailable(error) from error
    return connection


def empty_log(path: Path) -> bool:
    """Write the write-ahead log into the database file, and truncate the log.

    Return False if a read still needs the log. Raises Unavailable.
    """
    with closing(connect(path, read_only=False)) as connection:
        # The first checkpoint does not wait. The second one blocks writers for at most this time.
        connection.execute(f"PRAGMA busy_timeout = {EMPTY_LOG_MS_MAX}")
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise unavailable(error) from error
        return not busy


def bound(connection: sqlite3.Connection) -> sa.Connection:
    """Wrap a connection for SQLAlchemy. SQLAlchemy neither begins nor commits transactions on this connection."""
    # Errors are logged, and parameters can contain personal data and credentials in URLs.
    engine = sa.create_engine("sqlite://", creator=lambda: connection, poolclass=sa.StaticPool, hide_parameters=True)
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


def unavailable(error: Exception) -> Unavailable:
    """Convert a driver error to Unavailable."""
    return Unavailable(f"the database cannot execute the operation now: {error}")


def trouble_of(error: BaseException | None) -> Trouble | None:
    """Return the database problem that caused the error, or None if the statement itself caused the error."""
    while error is not None:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None:
            return _TROUBLES.get(code & 0xFF)
        error = getattr(error, "orig", None) or error.__cause__
    return None


class FileLock:
    """Locks that prevent a second server process from using a database file.

    The operating system releases the locks when the process ends. One lock is on a file next to the database, which can
    be locked before the database exists. The other lock is on the database itself, in case a process opens it through a
    hard link or someone deletes the lock file.
    """

    def __init__(self, path: Path) -> None:
        # Resolve links, because all paths to a file share one lock. SQLite reports circular links.
        target = Path(os.path.realpath(path))
        self.path: Final = target.with_name(target.name + ".lock")
        self._database = target
        self._handle: int | None = None
        self._database_handle: int | None = None

    def acquire(self) -> None:
        """Take the locks, and write the ID of this operating system process into the lock file.

        Raises InUse, which names the other process, if the file is locked. Raises Misaddressed if the lock file is a
        link or belongs to another user. Raises Unavailable.
        """
        try:
            handle = self._open()
        except OSError as error:
            if error.errno == errno.ELOOP and self.path.is_symlink():
                raise Misaddressed(f"{self.path} is a symbolic link; {_HOW_TO_FIX_LOCK}") from error
            raise unavailable(error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise self._in_use(f"another server (process {holder})") from error
        self._handle = handle
        try:
            self.hold_database()
        except Unavailable:
            self.release()
            raise
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)

    def hold_database(self) -> None:
        """Lock the database file itself, if it exists. Raises InUse or Unavailable.

        Call `release` only after all connections are closed. When a process closes any handle to a file, it loses
        SQLite's locks on the file.
        """
        if self._database_handle is not None:
            return
        try:
            handle = os.open(self._database, _READ)
        except FileNotFoundError:
            return
        except OSError as error:
            raise unavailable(error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise self._in_use("another server") from error
        self._database_handle = handle

    def is_held(self) -> bool:
        """Whether a server is using the database. The check creates no files.

        Raises Unavailable if the operating system user is not allowed to read the files.
        """
        for path in (self.path, self._database):
            try:
                handle = os.open(path, _READ)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise unavailable(error) from error
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(handle)
        return False

    def _in_use(self, holder: str) -> InUse:
        return InUse(
            f"{holder} is using {self._database}; stop that server, or choose another database with UPLIFT_DATABASE_URL"
        )

    def _open(self) -> int:
        # Do not follow links: if root runs a command, a link in the directory could make the command write elsewhere.
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            handle = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return self._checked(os.open(self.path, flags))
        if os.geteuid() == 0:
            # Give the file to the database's owner, because the server runs as this user and must be able to open it.
            database = self.path.with_suffix("")
            owner = (database if database.exists() else self.path.parent).stat()
            with contextlib.suppress(OSError):
                os.fchown(handle, owner.st_uid, owner.st_gid)
        return handle

    def _checked(self, handle: int) -> int:
        # The name could be a hard link to any file. Accept files that belong to the database's owner, or to this user
        # unless it is root. If root runs the command and owns the file, reject a hard link to anything but a lock file.
        theirs = {path.stat().st_uid for path in (self.path.with_suffix(""), self.path.parent) if path.exists()}
        found, user = os.fstat(handle), os.geteuid()
        is_ours = found.st_uid in theirs or found.st_uid == user != 0
        has_others = found.st_uid == user == 0 and found.st_nlink > 1 and not _LOCK.fullmatch(os.pread(handle, 32, 0))
        if is_ours and not has_others:
            return handle
        os.close(handle)
        what = "has another hard link" if is_ours else "belongs to a user who does not own the database"
        raise Misaddressed(f"{self.path} {what}; {_HOW_TO_FIX_LOCK}")

    def release(self) -> None:
        """Release the locks, but keep the lock file. If it were deleted, two processes could lock different files."""
        for handle in (self._database_handle, self._handle):
            if handle is not None:
                os.close(handle)
        self._database_handle = self._handle = None
