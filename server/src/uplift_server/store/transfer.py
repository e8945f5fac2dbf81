"""Transfers all data from a SQLite file to an empty PostgreSQL database.

`transfer` copies the tables in batches, in key order. The target stores the progress in each batch's transaction, so an
interrupted transfer can continue. Servers cannot start with the target database while the progress table exists. After
comparing both databases, `transfer` drops the progress table. The caller must hold the file lock.
"""

import ast
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from uplift_server.store import schema_version
from uplift_server.store.admission import SCHEMA_LOCK, TRANSFER_TABLE
from uplift_server.store.postgres import schema_version as postgres_version
from uplift_server.store.postgres.connection import DRIVER_ERRORS, Opener, Raw, store_error
from uplift_server.store.schema import metadata
from uplift_server.store.schema_partitions import event_partitions
from uplift_server.store.sqlite.connection import unavailable
from uplift_server.store.transfer_tables import TRANSFER_TABLES, Checksum, Key, TransferTable, quoted

COMPARE_BATCH_ROWS: Final = 500
"""Maximum number of target rows that the comparison reads at a time, including their bodies."""
_NO_TIMEOUTS: Final = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0"
_CREATE_PROGRESS: Final = (
    f"CREATE TABLE {TRANSFER_TABLE} (name text PRIMARY KEY, source text NOT NULL, after_key text, rows bigint NOT NULL)"
)
_HOW_TO_RESTART: Final = "drop the target database, create it again, then repeat this command"


class CannotTransfer(Exception):
    """The server cannot transfer the data. The message says how to fix it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one table: the number of rows copied or compared so far, and the total number of rows."""

    step: Literal["copying", "comparing"]
    table: str
    rows: int
    of: int


@dataclass(frozen=True, slots=True)
class Transferred:
    """A table that was transferred and compared."""

    table: str
    rows: int
    checksum: str
    characters_replaced: int
    """Number of NUL characters that were replaced, because PostgreSQL cannot store them in text."""


async def transfer(path: Path, url: str, on_progress: Callable[[Progress], None]) -> list[Transferred]:
    """Copy the data of a SQLite file to a PostgreSQL database, and compare both databases.

    After an interruption, another call continues after the rows that are already copied. Raises CannotTransfer,
    UnknownSchema, Unavailable or Rejected.
    """
    revision = schema_version.current(path)
    if revision != schema_version.HEAD:
        raise CannotTransfer(
            f"{path} has the schema {revision or '(none)'}, but this release needs {schema_version.HEAD};"
            f" run `uplift-server migrate` with UPLIFT_DATABASE_URL=sqlite:///{path} first"
        )
    try:
        with closing(_open(path)) as source:
            return await _transfer(source, _name(path), url, on_progress)
    except sqlite3.Error as error:
        raise unavailable(error) from error
    except DRIVER_ERRORS as error:
        raise store_error(error) from error


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _name(path: Path) -> str:
    return str(path.absolute())


async def _transfer(
    source: sqlite3.Connection, name: str, url: str, on_progress: Callable[[Progress], None]
) -> list[Transferred]:
    target = await Opener(url, no_timeouts=True).raw()
    try:
        await target.execute(_NO_TIMEOUTS)
        if not await _is_begun(target, name):
            await _prepare(url)
            await _begin(target, name)
        counts = {table.name: table.count(source) for table in TRANSFER_TABLES}
        for table in TRANSFER_TABLES:
            await _copy(source, target, table, counts[table.name], on_progress)
        moved = [await _compare(source, target, table, counts[table.name], on_progress) for table in TRANSFER_TABLES]
        await _finish(target)
        return moved
    finally:
        await target.close()


async def _prepare(url: str) -> None:
    """Create the tables if the target is empty. Raises CannotTransfer if tables from another release exist."""
    revision = await postgres_version.current(url)
    if revision not in (None, schema_version.HEAD):
        raise CannotTransfer(
            f"the target is not empty: it has the schema {revision} of another release; choose an empty database"
        )
    await postgres_version.prepare(url)


async def _is_begun(target: Raw, name: str) -> bool:
    """Whether the target has an unfinished transfer that can continue.

    Raises CannotTransfer if the unfinished transfer has a different source or release.
    """
    if await target.fetchval("SELECT to_regclass($1)", TRANSFER_TABLE) is None:
        return False
    source = await target.fetchval(f"SELECT min(source) FROM {TRANSFER_TABLE}")  # noqa: S608 - contains only constants
    if source != name:
        raise CannotTransfer(
            f"the target has an unfinished transfer from {source}; continue with that file, or {_HOW_TO_RESTART}"
        )
    revision = await target.fetchval("SELECT version_num FROM alembic_version")
    if revision != schema_version.HEAD:
        raise CannotTransfer(f"another release began the transfer to the target; {_HOW_TO_RESTART}")
    return True


async def _begin(target: Raw, name: str) -> None:
    """Create the progress table. Raises CannotTransfer if a table in the target has rows."""
    async with target.transaction():
        await target.execute(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
        for table in metadata.sorted_tables:
            if table is event_partitions:
                continue
            if await target.fetchval(f"SELECT EXISTS (SELECT 1 FROM {quoted(table.name)})"):  # noqa: S608 - as above
                raise CannotTransfer(
                    f"the target is not empty: its table {table.name} has rows; if an earlier transfer completed, no"
                    " other transfer is needed; otherwise, choose an empty database"
                )
        await target.execute(_CREATE_PROGRESS)
        await target.executemany(
            f"INSERT INTO {TRANSFER_TABLE} VALUES ($1, $2, NULL, 0)",  # noqa: S608 - as above
            [(table.name, name) for table in TRANSFER_TABLES],
        )


async def _copy(
    source: sqlite3.Connection, target: Raw, table: TransferTable, count: int, on_progress: Callable[[Progress], None]
) -> None:
    [(after_key, rows)] = await target.fetch(
        f"SELECT after_key, rows FROM {TRANSFER_TABLE} WHERE name = $1",  # noqa: S608 - as above
        table.name,
    )
    after: Key | None = None if after_key is None else ast.literal_eval(after_key)
    for batch in table.batches(source, after):
        last, earlier = repr(table.key_of(batch[-1])), rows
        rows += len(batch)
        async with target.transaction():
            changed = await target.execute(
                f"UPDATE {TRANSFER_TABLE} SET after_key = $1, rows = $2 WHERE name = $3 AND rows = $4",  # noqa: S608 - as above
                last, rows, table.name, earlier,
            )  # fmt: skip
            if changed != "UPDATE 1":
                raise CannotTransfer("another transfer to the target is running; wait until it ends")
            await target.copy_records_to_table(table.name, records=batch, columns=table.columns)
        on_progress(Progress("copying", table.name, rows, count))


async def _compare(
    source: sqlite3.Connection, target: Raw, table: TransferTable, count: int, on_progress: Callable[[Progress], None]
) -> Transferred:
    """Compare all rows of a table in both databases. Raises CannotTransfer if the rows differ."""
    wanted, found, replaced = Checksum(), Checksum(), 0
    for row, characters in table.rows(source):
        wanted.add(row)
        replaced += characters
    async with target.transaction(isolation="repeatable_read", readonly=True):
        cursor = await target.cursor(table.select)
        while records := await cursor.fetch(COMPARE_BATCH_ROWS):
            for record in records:
                found.add(tuple(record))
            on_progress(Progress("comparing", table.name, found.rows, count))
    if (wanted.rows, wanted.text) != (found.rows, found.text):
        raise CannotTransfer(
            f"the copy of {table.name} differs: {found.rows:,} rows with the checksum {found.text}, but the file has"
            f" {wanted.rows:,} with {wanted.text}, so the file or the copy was changed; {_HOW_TO_RESTART}"
        )
    return Transferred(table.name, wanted.rows, wanted.text, replaced)


async def _finish(target: Raw) -> None:
    """Set the target's sequences to the highest transferred numbers.

    Then drop the progress table, so that servers can start.
    """
    # Update the table statistics. Otherwise, the first statements would be planned for empty tables.
    await target.execute("ANALYZE")
    async with target.transaction():
        for table in TRANSFER_TABLES:
            if table.is_numbered:
                await target.execute(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', 'seq'), max(seq))"  # noqa: S608 - as above
                    f" FROM {quoted(table.name)} HAVING max(seq) IS NOT NULL"
                )
        await target.execute(
            "UPDATE event_partitions SET begun_at = e.created_at"
            " FROM (SELECT created_at FROM events ORDER BY seq LIMIT 1) e"
        )
        await target.execute(f"DROP TABLE {TRANSFER_TABLE}")
