"""Decides whether a server process may start, or rejoin its cluster, on a PostgreSQL database.

No process may start during a schema change, while a transfer from a SQLite file is unfinished, or with a release that
no longer works with the schema.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import server_values
from uplift_server.store.errors import Unavailable
from uplift_server.store.schema_version import UnknownSchema, release_order

SCHEMA_LOCK: Final = 0x75706C696673
"""The advisory lock that controls admission.

A schema change, or a transfer when it begins, takes the lock exclusively. Processes share it while they start.
"""
TRANSFER_TABLE: Final = "unfinished_move"
"""The name of a table that exists only during a transfer from a SQLite file (`store.transfer`)."""
TRANSFER_UNFINISHED: Final = (
    "the transfer from a SQLite file to this PostgreSQL database is not complete; complete it with `uplift-server"
    " migrate --from sqlite:///… --to postgresql://…`, or choose another database"
)
WAIT_MS_MAX: Final = 1_500
"""The maximum time that a starting process waits for SCHEMA_LOCK, in ms.

This time is shorter than the timeout for a database response.
"""
_NEEDED: Final = "schema.needs_release"
_LOCK_NOT_AVAILABLE: Final = "55P03"


def admit(connection: Connection, release: str) -> None:
    """Allow a process that runs this release to start, or to rejoin after an eviction.

    Check the schema again, because another process may have upgraded it. Raises UnknownSchema if the release no longer
    works with the schema, or if a transfer from a SQLite file is unfinished. Raises Unavailable while the schema is
    changing.
    """
    if connection.dialect.name == "sqlite":
        return  # the file lock excludes other processes
    connection.execute(sa.text(f"SET LOCAL lock_timeout = {WAIT_MS_MAX}"))
    try:
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock_shared({SCHEMA_LOCK})"))
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise Unavailable("another process is changing the schema of the database; try again in a moment") from error
    if connection.scalar(sa.text(f"SELECT to_regclass('{TRANSFER_TABLE}') IS NOT NULL")):
        raise UnknownSchema(TRANSFER_UNFINISHED)
    needed = server_values.get(connection, [_NEEDED]).get(_NEEDED, 0)
    if _number(release) < needed:
        raise UnknownSchema(
            f"the schema of the PostgreSQL database was upgraded and no longer works with release {release};"
            " start the release that upgraded it or a later one"
        )


def try_lock_schema(connection: Connection) -> bool:
    """Prevent processes from starting until the transaction ends.

    Return False if another process is starting or is changing the schema.
    """
    return bool(connection.scalar(sa.text(f"SELECT pg_try_advisory_xact_lock({SCHEMA_LOCK})")))


def require_release(connection: Connection, needed: str) -> None:
    """Prevent releases before `needed` from starting on this database."""
    server_values.lock(connection, _NEEDED)
    number = max(_number(needed), server_values.get(connection, [_NEEDED]).get(_NEEDED, 0))
    server_values.replace(connection, _NEEDED, {_NEEDED: number})


def _number(release: str) -> int:
    """Return the sort key of a release: 1,002,003 for 1.2.3."""
    major, minor, patch = (*release_order(release), 0, 0, 0)[:3]
    return (major * 1000 + minor) * 1000 + patch
