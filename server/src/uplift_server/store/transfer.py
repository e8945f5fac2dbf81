"""Moving everything from a SQLite file to an empty PostgreSQL database.

Tables are copied in bites, in the order of their keys. How far each has come stands in the target and is written in the
transaction of the bite, so whoever was stopped goes on there, however that came. The note goes when everything is
compared; until then no server starts on the target. The caller holds the file's lock.
"""

import ast
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from uplift_server.store import schema_version
from uplift_server.store.admission import SCHEMA_LOCK, UNFINISHED_MOVE
from uplift_server.store.postgres import schema_version as postgres_version
from uplift_server.store.postgres.connection import DRIVER_ERRORS, Opener, Raw, translated
from uplift_server.store.schema import metadata
from uplift_server.store.schema_partitions import event_partitions
from uplift_server.store.sqlite.connection import unavailable
from uplift_server.store.transfer_tables import MOVED, Checksum, Key, TransferTable, quoted

COMPARED_ROWS: Final = 500
"""How many rows of the target are read at a time: as many bodies are in memory."""
_PATIENCE: Final = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0"
_NOTE: Final = (
    f"CREATE TABLE {UNFINISHED_MOVE}"
    " (name text PRIMARY KEY, source text NOT NULL, after_key text, rows bigint NOT NULL)"
)
_ANEW: Final = "make the target database anew (DROP DATABASE, CREATE DATABASE), and run this again"


class CannotTransfer(Exception):
    """Why everything stays where it is. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How many rows of a table are done with."""

    step: Literal["copying", "comparing"]
    table: str
    rows: int
    of: int


@dataclass(frozen=True, slots=True)
class Transferred:
    """One table that is the same on both sides now."""

    table: str
    rows: int
    checksum: str
    characters_replaced: int
    """NUL characters, which PostgreSQL's texts cannot hold."""


async def move(path: Path, url: str, told: Callable[[Progress], None]) -> list[Transferred]:
    """Copy all tables of a SQLite file into a PostgreSQL database, compare both, and let servers start on the latter.

    Raises CannotTransfer, UnknownSchema, Unavailable and Rejected. A repetition continues after the rows copied before.
    """
    revision = schema_version.current(path)
    if revision != schema_version.HEAD:
        raise CannotTransfer(
            f"{path} has the schema {revision or 'of no database'}, and this program's is {schema_version.HEAD};"
            f" run `uplift-server migrate` with UPLIFT_DATABASE_URL=sqlite:///{path} first"
        )
    try:
        with closing(_opened(path)) as source:
            return await _move(source, _name(path), url, told)
    except sqlite3.Error as error:
        raise unavailable(error) from error
    except DRIVER_ERRORS as error:
        raise translated(error) from error


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _name(path: Path) -> str:
    return str(path.absolute())


async def _move(source: sqlite3.Connection, name: str, url: str, told: Callable[[Progress], None]) -> list[Transferred]:
    target = await Opener(url, patient=True).raw()
    try:
        await target.execute(_PATIENCE)
        if not await _is_begun(target, name):
            await _prepare(url)
            await _begin(target, name)
        counts = {table.name: table.count(source) for table in MOVED}
        for table in MOVED:
            await _copy(source, target, table, counts[table.name], told)
        moved = [await _compare(source, target, table, counts[table.name], told) for table in MOVED]
        await _finish(target)
        return moved
    finally:
        await target.close()


async def _prepare(url: str) -> None:
    """Create the tables of an empty target. Raises CannotTransfer if another release created them; it may still run."""
    revision = await postgres_version.current(url)
    if revision not in (None, schema_version.HEAD):
        raise CannotTransfer(
            f"the target is not empty: it has the tables of another release, with the schema {revision}; name a"
            " database that no server was started on"
        )
    await postgres_version.prepare(url)


async def _is_begun(target: Raw, name: str) -> bool:
    """Whether an earlier run has begun to fill the target. Raises CannotTransfer where it is not to be gone on with."""
    if await target.fetchval("SELECT to_regclass($1)", UNFINISHED_MOVE) is None:
        return False
    source = await target.fetchval(f"SELECT min(source) FROM {UNFINISHED_MOVE}")  # noqa: S608 - of our own texts
    if source != name:
        raise CannotTransfer(f"the target is being filled from {source}; go on with that file, or {_ANEW}")
    revision = await target.fetchval("SELECT version_num FROM alembic_version")
    if revision != schema_version.HEAD:
        raise CannotTransfer(f"another release of this program has begun to fill the target; {_ANEW}")
    return True


async def _begin(target: Raw, name: str) -> None:
    """Note that the target is being filled, if there is nothing in it."""
    async with target.transaction():
        await target.execute(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
        for table in metadata.sorted_tables:
            if table is event_partitions:
                continue
            if await target.fetchval(f"SELECT EXISTS (SELECT 1 FROM {quoted(table.name)})"):  # noqa: S608 - as above
                raise CannotTransfer(
                    f"the target is not empty: its table {table.name} has rows; if an earlier run has said that all was"
                    " moved there, nothing is left to do; otherwise name a database that no server was started on"
                )
        await target.execute(_NOTE)
        await target.executemany(
            f"INSERT INTO {UNFINISHED_MOVE} VALUES ($1, $2, NULL, 0)",  # noqa: S608 - as above
            [(table.name, name) for table in MOVED],
        )


async def _copy(
    source: sqlite3.Connection, target: Raw, table: TransferTable, count: int, told: Callable[[Progress], None]
) -> None:
    [(noted, rows)] = await target.fetch(
        f"SELECT after_key, rows FROM {UNFINISHED_MOVE} WHERE name = $1",  # noqa: S608 - as above
        table.name,
    )
    after: Key | None = None if noted is None else ast.literal_eval(noted)
    for bite in table.bites(source, after):
        last, earlier = repr(table.key_of(bite[-1])), rows
        rows += len(bite)
        async with target.transaction():
            changed = await target.execute(
                f"UPDATE {UNFINISHED_MOVE} SET after_key = $1, rows = $2 WHERE name = $3 AND rows = $4",  # noqa: S608 - as above
                last, rows, table.name, earlier,
            )  # fmt: skip
            if changed != "UPDATE 1":
                raise CannotTransfer("somebody else is filling the target, too; let one of the two finish")
            await target.copy_records_to_table(table.name, records=bite, columns=table.columns)
        told(Progress("copying", table.name, rows, count))


async def _compare(
    source: sqlite3.Connection, target: Raw, table: TransferTable, count: int, told: Callable[[Progress], None]
) -> Transferred:
    """Read both sides whole. Raises CannotTransfer where they differ."""
    wanted, found, replaced = Checksum(), Checksum(), 0
    for row, characters in table.rows(source):
        wanted.add(row)
        replaced += characters
    async with target.transaction(isolation="repeatable_read", readonly=True):
        cursor = await target.cursor(table.select)
        while records := await cursor.fetch(COMPARED_ROWS):
            for record in records:
                found.add(tuple(record))
            told(Progress("comparing", table.name, found.rows, count))
    if (wanted.rows, wanted.text) != (found.rows, found.text):
        raise CannotTransfer(
            f"the copy of {table.name} differs: {found.rows:,} rows with the checksum {found.text}, where the file has"
            f" {wanted.rows:,} with {wanted.text}, as if one of the two had been changed meanwhile; {_ANEW}"
        )
    return Transferred(table.name, wanted.rows, wanted.text, replaced)


async def _finish(target: Raw) -> None:
    """Number what comes next after what there is, and let servers start."""
    # Without it the first statements would be planned for empty tables.
    await target.execute("ANALYZE")
    async with target.transaction():
        for table in MOVED:
            if table.is_numbered:
                await target.execute(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', 'seq'), max(seq))"  # noqa: S608 - as above
                    f" FROM {quoted(table.name)} HAVING max(seq) IS NOT NULL"
                )
        await target.execute(
            "UPDATE event_partitions SET begun_at = e.created_at"
            " FROM (SELECT created_at FROM events ORDER BY seq LIMIT 1) e"
        )
        await target.execute(f"DROP TABLE {UNFINISHED_MOVE}")
