"""A copy of a file as it is at one instant, also beside a server that writes it."""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uplift_server.store.sqlite.connection import unavailable

_DRAFT: Final = ".uplift-backup-"
"""The number of the process that writes a draft follows."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy has: its size in bytes, and the events in it."""

    bytes: int
    events: int


def copy(path: Path, target: Path) -> Copied:
    """Copy a database file to a path where nothing is; the name appears once all of it is on the disk.

    Also deletes the drafts of killed copies in that directory. Raises Unavailable and FileExistsError, and then leaves
    no part of the copy.
    """
    draft = target.with_name(f"{_DRAFT}{os.getpid()}")
    try:
        _remove_abandoned(target.parent)
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source:
            copy_into(source, draft)
        with closing(sqlite3.connect(draft)) as raw:
            [(events,)] = raw.execute("SELECT count(*) FROM events")
        # Unlike a change of its name, a second one takes nobody's place.
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
    """Delete the drafts of killed processes."""
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
    """Copy an open database to a path; the name appears once all of it is on the disk. Raises OSError."""
    draft = target.with_name(f"{target.name}.partial")
    try:
        copy_into(source, draft)
        draft.replace(target)
        make_durable(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def copy_into(source: sqlite3.Connection, target: Path) -> None:
    """Copy a whole database into a new file that its owner alone may read, and which is on the disk then.

    In one step, so as one reader of one snapshot: SQLite begins anew after every step between which somebody has
    written, and in steps of 100 pages, as its shell takes them, 300 MB were not copied within 40 s beside 200 commits a
    second. In one they take a second.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(target)) as copied:
        source.backup(copied)
        # The copy is one file, without a log beside it.
        copied.execute("PRAGMA journal_mode = DELETE")
    make_durable(target)


def make_durable(path: Path) -> None:
    """Have a file, or the names in a directory, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
