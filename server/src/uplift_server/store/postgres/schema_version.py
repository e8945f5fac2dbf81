"""Which revision of the schema a PostgreSQL database has, and how it gets the program's own.

Processes that start together take turns: the first one does the work, the others find it done. Nothing is copied aside;
an upgrade that fails changes nothing, and what came before it is in the operator's own backup.
"""

from collections.abc import Callable
from typing import Final

import asyncpg
import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import processes, schema_version
from uplift_server.store.admission import SCHEMA_LOCK, TRANSFER_TABLE, TRANSFER_UNFINISHED, require_release
from uplift_server.store.errors import Misaddressed, Unavailable
from uplift_server.store.postgres.connection import DRIVER_ERRORS, Opener, Pair, driver_error, translated
from uplift_server.store.postgres.connection_errors import UNTOLD_POOLER
from uplift_server.store.schema_version import HEAD, UnknownSchema

VERSION_MIN: Final = 15
TABLE_WAIT_MS_MAX: Final = 3000
_TABLES: Final = sa.text("SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = current_schema()")


async def current(url: str) -> str | None:
    """The revision of a database; None where it is empty. Raises UnknownSchema and Unavailable."""
    opener = Opener(url)
    try:
        pair = await opener.pair()
        try:
            await _refuse_untold_pooler(pair)
            async with pair.alone():
                return await pair.sql.run_sync(_current)
        finally:
            await pair.close()
    except DRIVER_ERRORS as error:
        raise translated(error) from error


async def prepare(url: str) -> None:
    """Make the tables of an empty database; what a server's start does.

    Raises UnknownSchema for any other revision than the program's: an upgrade is begun by a person, beside servers of
    the earlier release. Raises Unavailable where the database cannot be reached or written.
    """
    await _in_turn(url, _prepare)


async def upgrade(url: str) -> str | None:
    """Bring a database to the program's revision, in one transaction; the revision it had, where that was an older one.

    An empty one gets its tables. Raises UnknownSchema for a newer one or one that is not ours, Unavailable where it
    cannot be reached or written, or while servers run that would not work with it; nothing has changed then.
    """
    return await _in_turn(url, _upgrade)


async def _in_turn(url: str, work: Callable[[Connection], str | None]) -> str | None:
    # Most starts find nothing to do. They need not wait for their turn, nor for a database that does not answer.
    if await current(url) == HEAD:
        return None
    opener = Opener(url, patient=True)
    try:
        pair = await opener.pair()
        try:
            version = pair.raw.get_server_version()
            if version.major < VERSION_MIN:
                raise Unavailable(
                    f"the database is PostgreSQL {version.major}; this program needs {VERSION_MIN} or newer"
                )
            encoding = await pair.raw.fetchval("SHOW server_encoding")
            if encoding != "UTF8":
                raise Misaddressed(
                    f"the database has the encoding {encoding}, which cannot hold every text; make another with:"
                    " CREATE DATABASE uplift TEMPLATE template0 ENCODING 'UTF8'"
                )
            async with pair.transaction():
                await pair.raw.execute(f"SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
                # Whatever waits for a table lets all others wait behind it, servers too.
                await pair.raw.execute(f"SET LOCAL lock_timeout = {TABLE_WAIT_MS_MAX}")
                return await pair.sql.run_sync(work)
        finally:
            await pair.close()
    except DRIVER_ERRORS as error:
        if isinstance(driver_error(error), asyncpg.LockNotAvailableError):
            raise Unavailable(
                "a transaction has held one of the tables for too long, and nothing was changed; end it (a dump? a"
                " report?), then run this again"
            ) from error
        raise translated(error) from error


async def _refuse_untold_pooler(pair: Pair) -> None:
    """Raises Misaddressed where what was set for the connection is not: another one answers."""
    made = "SELECT current_setting('jit') = 'off' AND current_setting('synchronous_commit') = 'on'"
    if not pair.settings and not await pair.raw.fetchval(made):
        raise Misaddressed(UNTOLD_POOLER)


def _current(connection: Connection) -> str | None:
    names = set(connection.scalars(_TABLES))
    if not names:
        return None
    if TRANSFER_TABLE in names:
        raise UnknownSchema(TRANSFER_UNFINISHED)
    revisions = list(connection.scalars(sa.text("SELECT version_num FROM alembic_version"))) if names >= _OURS else []
    if len(revisions) != 1:
        raise UnknownSchema(
            "the PostgreSQL database holds tables of another program; choose another with UPLIFT_DATABASE_URL"
        )
    return str(revisions[0])


_OURS: Final = {"alembic_version", "deliveries"}


def _prepare(connection: Connection) -> None:
    revision = _current(connection)
    if revision is None:
        schema_version.create(connection)
    elif revision != HEAD:
        schema_version.reject_unknown("the PostgreSQL database", revision)
        raise UnknownSchema(
            f"the PostgreSQL database has the schema {revision}, and this program needs {HEAD}; run"
            " `uplift-server migrate` of this release first, while servers of the earlier one go on"
        )


def _upgrade(connection: Connection) -> str | None:
    revision = _current(connection)
    if revision == HEAD:
        return None
    if revision is None:
        schema_version.create(connection)
        return None
    schema_version.reject_unknown("the PostgreSQL database", revision)
    needed = schema_version.needed_release(revision)
    if needed is not None:
        _refuse_earlier_servers(connection, needed)
    schema_version.run(connection)
    if needed is not None:
        require_release(connection, needed)
    return revision


def _refuse_earlier_servers(connection: Connection, needed: str) -> None:
    if "processes" not in connection.scalars(_TABLES).all():
        return  # Nor were there several servers on one database then.
    living = [
        f"{each.version} on {each.host} (process {each.pid})"
        for each in processes.list_running_before(connection, needed)
    ]
    if living:
        raise Unavailable(
            f"servers run that would not work with the upgraded schema, which needs release {needed}:"
            f" {', '.join(living)}; bring them to that release or stop them, then run this again"
        )
