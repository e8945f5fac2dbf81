"""Which revision of the schema a PostgreSQL database has, and how it gets the program's own.

Processes that start together take turns: the first one does the work, the others find it done. Nothing is copied aside;
an upgrade that fails changes nothing, and what came before it is in the operator's own backup.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import schema_version
from uplift_server.store.errors import Unavailable
from uplift_server.store.postgres.connection import DRIVER_ERRORS, Opener, translated
from uplift_server.store.schema_version import HEAD, UnknownSchema

VERSION_MIN: Final = 15
SCHEMA_LOCK: Final = 0x75706C696673
UNFINISHED_MOVE: Final = "unfinished_move"
"""The table that is there while a database is being filled from a SQLite file (`store.moving`)."""
_TABLES: Final = sa.text("SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = current_schema()")


async def current(url: str) -> str | None:
    """The revision of a database; None where it is empty. Raises UnknownSchema and Unavailable."""
    opener = Opener(url)
    try:
        pair = await opener.pair()
        try:
            return await pair.sql.run_sync(_current)
        finally:
            await pair.close()
    except DRIVER_ERRORS as error:
        raise translated(error) from error


async def upgrade(url: str) -> str | None:
    """Bring a database to the program's revision, in one transaction; the revision it had, where that was an older one.

    An empty one gets its tables. Raises UnknownSchema for a newer one or one that is not ours, Unavailable where it
    cannot be reached or written; nothing has changed then.
    """
    opener = Opener(url, patient=True)
    try:
        pair = await opener.pair()
        try:
            version = pair.raw.get_server_version()
            if version.major < VERSION_MIN:
                raise Unavailable(
                    f"the database is PostgreSQL {version.major}; this program needs {VERSION_MIN} or newer"
                )
            # Most starts find nothing to do, and need not wait for their turn.
            if await pair.sql.run_sync(_current) == HEAD:
                return None
            async with pair.raw.transaction():
                await pair.raw.execute(f"SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
                return await pair.sql.run_sync(_upgrade)
        finally:
            await pair.close()
    except DRIVER_ERRORS as error:
        raise translated(error) from error


def _current(connection: Connection) -> str | None:
    names = set(connection.scalars(_TABLES))
    if not names:
        return None
    if UNFINISHED_MOVE in names:
        raise UnknownSchema(
            "the PostgreSQL database is being filled from a SQLite file, and not all of it is there; finish that with"
            " `uplift-server migrate --from sqlite:///… --to postgresql://…`, or choose another database"
        )
    revisions = list(connection.scalars(sa.text("SELECT version_num FROM alembic_version"))) if names >= _OURS else []
    if len(revisions) != 1:
        raise UnknownSchema(
            "the PostgreSQL database holds tables of another program; choose another with UPLIFT_DATABASE_URL"
        )
    return str(revisions[0])


_OURS: Final = {"alembic_version", "deliveries"}


def _upgrade(connection: Connection) -> str | None:
    revision = _current(connection)
    if revision == HEAD:
        return None
    if revision is None:
        schema_version.create(connection)
        return None
    schema_version.refuse_unknown("the PostgreSQL database", revision)
    schema_version.run(connection)
    return revision
