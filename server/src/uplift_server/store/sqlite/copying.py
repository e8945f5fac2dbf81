"""Makes consistent copies of a database file, even while a server is using the file."""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uplift_server.store.sqlite.connection import unavailable

_DRAFT: Final = ".uplift-backup-"
"""The name prefix of incomplete copies. The operating system ID of the copying process follows."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The size of a copy in bytes, and the number of events in it."""

    bytes: int
    events: int


def copy(path: Path, target: Path) -> Copied:
    """Copy a database file to the path `target`, which must not exist.

    The copy appears at this path only when it is complete and on disk. The function also deletes incomplete copies that
    killed processes left in the same directory. If it raises FileExistsError or Unavailable, it leaves no incomplete
    copy.
    """
    draft = target.with_name(f"{_DRAFT}{os.getpid()}")
    try:
        _remove_abandoned(target.parent)
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source:
            copy_into(source, draft)
        with closing(sqlite3.connect(draft)) as raw:
            [(events,)] = raw.execute("SELECT count(*) FROM events")
        # Unlike a rename, a hard link never replaces a file.
        os.link(draft, target)
        make_durable(target.parent)
        return Copied(target.stat().st_size, events)
    except sqlite3.Error as error:
        raise unavailable(error) from error
    except FileExistsError:
        raise
    except OSError as error:
        raise unavailable(error) from error
    finally:
        draft.unlink(missing_ok=True)


def _remove_abandoned(directory: Path) -> None:
    """Delete the incomplete copies that processes left when they ended."""
    for draft in directory.glob(f"{_DRAFT}*"):
        process = draft.name.removeprefix(_DRAFT)
        if process.isdecimal() and not _runs(int(process)):
            draft.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def save(source: sqlite3.Connection, target: Path) -> None:
    """Copy an open database to a path, and replace any file there. Raises OSError.

    The copy appears at this path only when it is complete and on disk.
    """
    draft = target.with_name(f"{target.name}.partial")
    try:
        copy_into(source, draft)
        draft.replace(target)
        make_durable(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def copy_into(source: sqlite3.Connection, target: Path) -> None:
    """Copy a database into a new file that only its owner can read, and flush the file to disk.

    SQLite makes the copy in one step, from one snapshot. With several steps, SQLite would restart the copy after each
    write between two steps. At 200 commits per second, a copy of 300 MB in steps of 100 pages did not finish within
    40 s. In one step, the copy takes 1 s.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(target)) as copied:
        source.backup(copied)
        # Make the copy a single file without a write-ahead log.
        copied.execute("PRAGMA journal_mode = DELETE")
    make_durable(target)


def make_durable(path: Path) -> None:
    """Flush a file, or the entries of a directory, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
