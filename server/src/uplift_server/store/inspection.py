"""Looking at a SQLite file from outside, for the operator's `doctor`. Reads only; the caller holds the file's lock."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from uplift_server.store.resealing import SEALED
from uplift_server.store.sqlite.connection import unavailable

_STEPS: Final = 100_000
"""How many steps of SQLite's virtual machine run between two looks at the clock."""


def damages(path: Path, *, seconds: float) -> list[str] | None:
    """What SQLite's quick check finds wrong with a file; None if it took too long to tell. Raises Unavailable."""
    deadline = time.monotonic() + seconds
    try:
        with closing(_open(path)) as raw:
            raw.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS)
            found = [str(text) for (text,) in raw.execute("PRAGMA quick_check(10)")]
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            return None
        raise unavailable(error) from error
    except sqlite3.Error as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def sealed_values(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Every sealed value, after the id of its endpoint. Raises Unavailable."""
    try:
        with closing(_open(path)) as raw:
            query = f"SELECT id, {', '.join(SEALED)} FROM endpoints WHERE deleted_at IS NULL"  # noqa: S608
            for endpoint_id, *sealed in raw.execute(query):
                yield from ((bytes(endpoint_id), bytes(each)) for each in sealed if each is not None)
    except sqlite3.Error as error:
        raise unavailable(error) from error


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
