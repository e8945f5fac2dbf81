"""Creates and upgrades a PostgreSQL database's schema.

A lock ensures that only one process at a time changes the schema. An upgrade is one transaction. If it fails, the
database does not change. The server makes no backup before an upgrade.
"""

from collections.abc import Callable
from typing import Final

import asyncpg
import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import processes, schema_version
from uplift_server.store.admission import SCHEMA_LOCK, TRANSFER_TABLE, TRANSFER_UNFINISHED, require_release
from uplift_server.store.errors import Misaddressed, Unavailable
from uplift_server.store.postgres.connection import DRIVER_ERRORS, Opener, Pair, driver_error, store_error
from uplift_server.store.postgres.connection_errors import UNDECLARED_POOLER
from uplift_server.store.schema_version import HEAD, UnknownSchema

VERSION_MIN: Final = 15
TABLE_LOCK_MS_MAX: Final = 3000
DEADLOCK_RETRIES_MAX: Final = 5
"""Maximum number of times that an upgrade is repeated after a deadlock with a running server."""
_TABLES: Final = sa.text("SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = current_schema()")


async def current(url: str) -> str | None:
    """Return the schema revision of a database, or None if the database is empty.

    Raises UnknownSchema if the database has another program's tables or an unfinished transfer. Raises Unavailable.
    """
    opener = Opener(url)
    try:
        pair = await opener.pair()
        try:
            await _reject_undeclared_pooler(pair)
            async with pair.statement_scope():
                return await pair.sql.run_sync(_current)
        finally:
            await pair.close()
    except DRIVER_ERRORS as error:
        raise store_error(error) from error


async def prepare(url: str) -> None:
    """Create the tables if the database is empty. A server calls this function when it starts.

    Raises UnknownSchema if the database's revision differs from this release's revision. Only `migrate` upgrades a
    database. Raises Unavailable.
    """
    await _run_exclusively(url, _prepare)


async def upgrade(url: str) -> str | None:
    """Upgrade a database to the revision of this release, or create its tables.

    Return the earlier revision, or None if there was no upgrade. Raises UnknownSchema if the revision is newer or
    unknown. Raises Unavailable if the database cannot be used, or if the new schema would break running servers.
    """
    return await _run_exclusively(url, _upgrade)


async def _run_exclusively(url: str, work: Callable[[Connection], str | None]) -> str | None:
    # Usually, the schema is current at startup, so first check it with timeouts and without the lock.
    if await current(url) == HEAD:
        return None
    for _ in range(DEADLOCK_RETRIES_MAX):
        try:
            return await _run(url, work)
        except Unavailable as error:
            # Servers and migrations lock tables in different orders. A deadlock rolls back the upgrade, so repeat it.
            if not isinstance(driver_error(error.__cause__ or error), asyncpg.DeadlockDetectedError):
                raise
    return await _run(url, work)


async def _run(url: str, work: Callable[[Connection], str | None]) -> str | None:
    opener = Opener(url, no_timeouts=True)
    try:
        pair = await opener.pair()
        try:
            version = pair.raw.get_server_version()
            if version.major < VERSION_MIN:
                raise Unavailable(
                    f"the database is PostgreSQL {version.major}; the server needs {VERSION_MIN} or later"
                )
            encoding = await pair.raw.fetchval("SHOW server_encoding")
            if encoding != "UTF8":
                raise Misaddressed(
                    f"the database has the encoding {encoding}, which cannot store all text; create another database:"
                    " CREATE DATABASE uplift TEMPLATE template0 ENCODING 'UTF8'"
                )
            async with pair.transaction():
                await pair.raw.execute(f"SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
                # While the upgrade waits for a table, all server statements on that table also wait, so limit the wait.
                await pair.raw.execute(f"SET LOCAL lock_timeout = {TABLE_LOCK_MS_MAX}")
                return await pair.sql.run_sync(work)
        finally:
            await pair.close()
    except DRIVER_ERRORS as error:
        if isinstance(driver_error(error), asyncpg.LockNotAvailableError):
            raise Unavailable(
                "a long transaction, such as a dump or a report, locks a table, so the upgrade changed nothing; end"
                " this transaction, then try again"
            ) from error
        raise store_error(error) from error


async def _reject_undeclared_pooler(pair: Pair) -> None:
    """Raise Misaddressed if the connection's settings do not apply, which indicates an undeclared pooler."""
    made = "SELECT current_setting('jit') = 'off' AND current_setting('synchronous_commit') = 'on'"
    if not pair.settings and not await pair.raw.fetchval(made):
        raise Misaddressed(UNDECLARED_POOLER)


def _current(connection: Connection) -> str | None:
    names = set(connection.scalars(_TABLES))
    if not names:
        return None
    if TRANSFER_TABLE in names:
        raise UnknownSchema(TRANSFER_UNFINISHED)
    revisions = list(connection.scalars(sa.text("SELECT version_num FROM alembic_version"))) if names >= _OURS else []
    if len(revisions) != 1:
        raise UnknownSchema(
            "the PostgreSQL database has tables of another program; choose another database with UPLIFT_DATABASE_URL"
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
            f"the PostgreSQL database has the schema {revision}, but this release needs {HEAD}; run"
            " `uplift-server migrate` of this release first (servers of the previous release can keep running)"
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
        _reject_running_servers(connection, needed)
    schema_version.run(connection)
    if needed is not None:
        require_release(connection, needed)
    return revision


def _reject_running_servers(connection: Connection, needed: str) -> None:
    if "processes" not in connection.scalars(_TABLES).all():
        return  # Releases without the table `processes` allowed only one server per database.
    living = [
        f"{each.version} on {each.host} (process {each.pid})"
        for each in processes.list_running_before(connection, needed)
    ]
    if living:
        raise Unavailable(
            f"the upgraded schema requires release {needed} or later, but these running servers are older:"
            f" {', '.join(living)}; upgrade or stop these servers, then try again"
        )
