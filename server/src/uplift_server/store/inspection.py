"""Read-only inspection of a SQLite file for `uplift-server doctor`."""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from uplift_server.core.ids import ACCOUNT, parse_prefixed
from uplift_server.store import database_identity, status_sql
from uplift_server.store.encryption import COLUMNS, TOTP_SECRET, Column
from uplift_server.store.encryption_upgrade import FIRST_REVISION, VALUE_NAME
from uplift_server.store.sqlite.connection import unavailable

SELECT_ENCRYPTED: Final = (
    f"SELECT id, {', '.join(COLUMNS)}, NULL FROM endpoints WHERE deleted_at IS NULL"  # noqa: S608
    f" UNION ALL SELECT person_id, {', '.join(['NULL'] * len(COLUMNS))}, {TOTP_SECRET} FROM second_factors"
)
"""The statement that selects all encrypted values, for both engines."""
SELECT_ACCEPTS_UNBOUND: Final = (
    f"SELECT EXISTS (SELECT 1 FROM marks WHERE name = '{VALUE_NAME}') OR (SELECT max(version_num) FROM alembic_version)"  # noqa: S608
    f" < '{FIRST_REVISION}'"
)
_HELD: Final = f"FROM deliveries INDEXED BY deliveries_held WHERE {status_sql.held()}"
_FIRST: Final = "AND endpoint_seq > ? ORDER BY endpoint_seq, event_seq LIMIT 1"
_STEPS_BETWEEN_CHECKS: Final = 100_000
"""Number of SQLite virtual machine instructions between two tests of the quick check's time limit."""


def find_damage(path: Path, *, seconds: float) -> list[str] | None:
    """Run SQLite's quick check for up to `seconds`.

    Return the errors that the check finds, or None if the check takes longer. Raises Unavailable.
    """
    stop_at = time.monotonic() + seconds
    try:
        with closing(_open(path)) as raw:
            raw.set_progress_handler(lambda: int(time.monotonic() > stop_at), _STEPS_BETWEEN_CHECKS)
            found = [str(text) for (text,) in raw.execute("PRAGMA quick_check(10)")]
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            return None
        raise unavailable(error) from error
    except sqlite3.Error as error:
        return [str(error)]
    return [] if found == ["ok"] else found


class EncryptedValue(NamedTuple):
    """An encrypted value of an endpoint or a person. `owner_id` is the ID of the endpoint or person."""

    owner_id: bytes
    column: Column
    value: bytes


def encrypted_values(path: Path) -> Iterator[EncryptedValue]:
    """Iterate over all encrypted values in a database file. Raises Unavailable."""
    try:
        with closing(_open(path)) as raw:
            yield from values_of(raw.execute(SELECT_ENCRYPTED))
    except sqlite3.Error as error:
        raise unavailable(error) from error


def values_of(rows: Iterable[Sequence[bytes | None]]) -> Iterator[EncryptedValue]:
    """Iterate over the encrypted values in the result rows of SELECT_ENCRYPTED."""
    for owner_id, *values in rows:
        for column, value in zip((*COLUMNS, TOTP_SECRET), values, strict=True):
            if owner_id is not None and value is not None:
                yield EncryptedValue(bytes(owner_id), column, bytes(value))


def accepts_unbound(path: Path) -> bool:
    """Return whether a database file may contain encrypted values that are not bound to their column.

    Raises Unavailable.
    """
    try:
        with closing(_open(path)) as raw:
            return bool(raw.execute(SELECT_ACCEPTS_UNBOUND).fetchone()[0])
    except sqlite3.Error as error:
        raise unavailable(error) from error


@dataclass(frozen=True, slots=True)
class Held:
    """Counts of held deliveries and their endpoints, and the timestamp of the oldest held event (Unix ms)."""

    count: int
    endpoints: int
    oldest_at: int | None


def held(path: Path, *, limit: int) -> Held:
    """Count held deliveries and their endpoints. Each count stops at `limit`.

    You can call this function while a server is using the file. Raises Unavailable.
    """
    try:
        with closing(_open(path)) as raw:
            (count,) = raw.execute(f"SELECT count(*) FROM (SELECT 1 {_HELD} LIMIT ?)", (limit,)).fetchone()  # noqa: S608
            # A loose index scan: it jumps from the first entry of one endpoint to the first entry of the next.
            oldest: list[int] = []
            endpoint_seq = 0
            while len(oldest) < limit:
                row = raw.execute(f"SELECT endpoint_seq, event_seq {_HELD} {_FIRST}", (endpoint_seq,)).fetchone()
                if row is None:
                    break
                endpoint_seq, event_seq = row
                oldest.append(event_seq)
            if not oldest:
                return Held(0, 0, None)
            accepted = raw.execute("SELECT created_at FROM events WHERE seq = ?", (min(oldest),)).fetchone()
            return Held(count, len(oldest), None if accepted is None else accepted[0])
    except sqlite3.Error as error:
        raise unavailable(error) from error


def database_id(path: Path) -> str | None:
    """Return the database ID, or None if the database has none.

    You can call this function while a server is using the file. Raises Unavailable.
    """
    try:
        with closing(_open(path)) as raw:
            row = raw.execute("SELECT value FROM marks WHERE name = ?", (database_identity.VALUE_NAME,)).fetchone()
            return None if row is None else database_identity.format_id(row[0])
    except sqlite3.Error as error:
        raise unavailable(error) from error


def has_account(path: Path, text: str) -> bool:
    """Return whether an account with this ID or uid exists. Raises Unavailable."""
    account = {"id": parse_prefixed(ACCOUNT, text), "uid": text}
    query = "SELECT EXISTS (SELECT 1 FROM accounts WHERE deleted_at IS NULL AND (id = :id OR uid = :uid))"
    try:
        with closing(_open(path)) as raw:
            return bool(raw.execute(query, account).fetchone()[0])
    except sqlite3.Error as error:
        raise unavailable(error) from error


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
