"""Detects whether the database file was deleted, replaced or truncated while the server used it.

SQLite still writes to the deleted or replaced file, and each commit succeeds. When the process ends, this data is lost.
"""

import os
from pathlib import Path
from typing import Final, NamedTuple

from uplift_server.store.errors import Unavailable

FILE_CHECK_SECONDS: Final = 1.0
_LOG: Final = "-wal"
_INDEX: Final = "-shm"


class DatabaseLost(Exception):
    """The database file was deleted, replaced or truncated while a server used it.

    The message says how to fix it.
    """


class FileChange(NamedTuple):
    """A harmful change: the database file or its log was deleted or replaced, or the database file was truncated."""

    text: str
    is_readable: bool
    """Whether open connections can still read the whole database."""


class FileWatch:
    """Detects harmful changes to an open database file and its write-ahead log. All methods are thread-safe."""

    def __init__(self, path: Path) -> None:
        target = Path(os.path.realpath(path))
        self._path = target
        self._log_path = target.with_name(target.name + _LOG)
        self._file = _identity(_found(target))
        self._log = _identity(_found(self._log_path))
        self._size = 0

    def change(self) -> FileChange | None:
        """Return the harmful change to the files since this object was created, if any. Raises OSError.

        SQLite never truncates the database file, because the server does not vacuum it. Therefore, a smaller file is a
        harmful change. A smaller log is not, because SQLite truncates its log.
        """
        # Read the stored size first, because another thread can store a larger size in the meantime.
        size_before = self._size
        found, log = _found(self._path), _identity(_found(self._log_path))
        if found is None:
            return FileChange(f"{self._path} was deleted", True)
        if _identity(found) != self._file:
            return FileChange(f"{self._path} was replaced by another file", True)
        if found.st_size < size_before:
            return FileChange(f"{self._path} was truncated from {size_before:,} to {found.st_size:,} bytes", False)
        self._size = found.st_size
        if self._log is None:
            self._log = log
        elif log is None:
            return FileChange(f"{self._log_path} was deleted", True)
        elif log != self._log:
            return FileChange(f"{self._log_path} was replaced by another file", True)
        return None

    def check(self) -> None:
        """Raise Unavailable if there was a harmful change. Call this method before you open another connection.

        A new connection to the changed files could damage the data that open connections use.
        """
        try:
            change = self.change()
        except OSError as error:
            raise Unavailable(f"the server cannot examine the database file: {error}") from error
        if change is not None:
            raise Unavailable(change.text)

    def remove_log(self) -> None:
        """Delete the log of a lost database file. Call this method after the content of the log is saved elsewhere.

        Without this call, SQLite would apply the log to the next database file at this path.
        """
        if self._log is not None and _identity(_found(self._log_path)) == self._log:
            for end in (_LOG, _INDEX):
                self._path.with_name(self._path.name + end).unlink(missing_ok=True)


def _found(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _identity(found: os.stat_result | None) -> tuple[int, int] | None:
    return None if found is None else (found.st_dev, found.st_ino)
