"""Who may begin to run on a PostgreSQL database whose schema may be changed, or which may be filled, just then."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import server_values
from uplift_server.store.errors import Unavailable
from uplift_server.store.schema_version import UnknownSchema, release_order

SCHEMA_LOCK: Final = 0x75706C696673
"""The advisory lock of whoever changes the schema or begins to fill the database, shared by who begins to run on it."""
UNFINISHED_MOVE: Final = "unfinished_move"
"""The table that is there while a database is being filled from a SQLite file (`store.transfer`)."""
BEING_FILLED: Final = (
    "the PostgreSQL database is being filled from a SQLite file, and not all of it is there; finish that with"
    " `uplift-server migrate --from sqlite:///… --to postgresql://…`, or choose another database"
)
WAIT_MS_MAX: Final = 1_500
"""How long whoever begins to run waits for that: not as long as an answer may take."""
_NEEDED: Final = "schema.needs_release"
_LOCK_NOT_AVAILABLE: Final = "55P03"


def admit(connection: Connection, release: str) -> None:
    """Let a process of a release begin to run, once nobody changes anything.

    It has looked at the schema before, but an upgrade may have come between the two, or while it was held up for so
    long that it counted as dead. Raises UnknownSchema, and Unavailable while something is changed.
    """
    if connection.dialect.name == "sqlite":
        return  # One process has the file for itself, from before it looks at the schema.
    connection.execute(sa.text(f"SET LOCAL lock_timeout = {WAIT_MS_MAX}"))
    try:
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock_shared({SCHEMA_LOCK})"))
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise Unavailable("the schema of the database is being changed; try it again in a moment") from error
    if connection.scalar(sa.text(f"SELECT to_regclass('{UNFINISHED_MOVE}') IS NOT NULL")):
        raise UnknownSchema(BEING_FILLED)
    needed = server_values.get(connection, [_NEEDED]).get(_NEEDED, 0)
    if _number(release) < needed:
        raise UnknownSchema(
            f"the schema of the PostgreSQL database was upgraded and no longer works with release {release};"
            " start the release that upgraded it, or a later one"
        )


def try_lock_schema(connection: Connection) -> bool:
    """Keep processes from starting until the transaction ends; False if another process changes the schema."""
    return bool(connection.scalar(sa.text(f"SELECT pg_try_advisory_xact_lock({SCHEMA_LOCK})")))


def leave_behind(connection: Connection, needed: str) -> None:
    """Keep releases before `needed` from starting on this database."""
    number = max(_number(needed), server_values.get(connection, [_NEEDED]).get(_NEEDED, 0))
    server_values.replace(connection, _NEEDED, {_NEEDED: number})


def _number(release: str) -> int:
    """A number by which releases are ordered: that of 1.2.3 is 1,002,003."""
    major, minor, patch = (*release_order(release), 0, 0, 0)[:3]
    return (major * 1000 + minor) * 1000 + patch
