"""Binds stored encrypted values to their columns (version 2 in `store.encryption`).

Migration 0011 marks the upgrade as unfinished. While this mark exists, the server reads and writes values that are
bound only to their endpoint. On PostgreSQL, servers of earlier releases can run alongside this server but cannot read
bound values. When no server of an earlier release is running or can start, this server re-encrypts all values and
deletes the mark. From then on, this server reads only bound values.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import admission, processes, server_values
from uplift_server.store.encryption import COLUMNS, UNBOUND, Cipher, Column
from uplift_server.store.schema import endpoints, marks

FIRST_RELEASE: Final = "0.1.2"
"""The first release that reads bound values."""
BATCH_ROWS: Final = 300
"""The number of endpoints whose values one batch re-encrypts."""
FIRST_REVISION: Final = "0011"
"""The first schema revision that can contain values bound to their column."""
VALUE_NAME: Final = "encryption.unbound"


def accepts_unbound(connection: Connection) -> bool:
    """Return whether the database may contain values that are not bound to their column."""
    return bool(server_values.get(connection, [VALUE_NAME]))


def must_bind(connection: Connection, cipher: Cipher) -> bool:
    """Return whether this transaction must write bound values. The result is valid until the transaction ends.

    Call the function before the transaction reads the values that it will write back. If another transaction is
    finishing the upgrade, the function waits for that transaction. Otherwise, the upgrade cannot finish until the
    current transaction ends.
    """
    if not cipher.accepts_unbound:
        return True
    query = sa.select(marks.c.value).where(marks.c.name == VALUE_NAME)
    return connection.execute(query.with_for_update(read=True)).first() is None


def block_earlier_releases(connection: Connection) -> bool:
    """Prevent servers from starting if their release cannot read bound values.

    Return False if such a server is running, if any server is starting, or if the schema is changing.
    """
    if connection.dialect.name == "sqlite":
        return True  # only this process uses the database file
    if not admission.try_lock_schema(connection):
        return False
    if processes.list_running_before(connection, FIRST_RELEASE):
        return False
    admission.require_release(connection, FIRST_RELEASE)
    return True


def bind_batch(connection: Connection, cipher: Cipher, after: int) -> int | None:
    """Bind the values of the next BATCH_ROWS endpoints to their columns.

    Return the `seq` of the last endpoint, or None if no endpoint is left. Raises WrongSecretKey.
    """
    unbound = sa.or_(*(_version(column) == UNBOUND for column in COLUMNS))
    rows = connection.execute(
        sa.select(endpoints.c.seq, endpoints.c.id, *(endpoints.c[column] for column in COLUMNS))
        .where(endpoints.c.seq > after, endpoints.c.deleted_at.is_(None), unbound)
        .order_by(endpoints.c.seq)
        .limit(BATCH_ROWS)
        .with_for_update()
    ).all()
    if not rows:
        return None
    change = (
        sa.update(endpoints)
        .where(endpoints.c.seq == sa.bindparam("at"))
        .values({column: sa.bindparam(f"new_{column}") for column in COLUMNS})
    )
    changes = []
    for seq, endpoint_id, *values in rows:
        changed: dict[str, object] = {"at": seq}
        for column, value in zip(COLUMNS, values, strict=True):
            text = None if value is None else cipher.decrypt(value, endpoint_id, column)
            changed[f"new_{column}"] = None if text is None else cipher.encrypt(text, endpoint_id, column)
        changes.append(changed)
    connection.execute(change, changes)
    return int(rows[-1].seq)


def finish(connection: Connection, cipher: Cipher) -> bool:
    """Bind all remaining values, and record that the upgrade is complete.

    Return False if the upgrade was already complete. Call this function only after `block_earlier_releases`. Raises
    WrongSecretKey.
    """
    query = sa.select(marks.c.value).where(marks.c.name == VALUE_NAME)
    if connection.execute(query.with_for_update()).first() is None:
        return False
    after: int | None = 0
    while after is not None:
        after = bind_batch(connection, cipher, after)
    mark_complete(connection)
    return True


def mark_complete(connection: Connection) -> None:
    """Record that the upgrade is complete. All values must be bound already."""
    admission.require_release(connection, FIRST_RELEASE)
    connection.execute(sa.delete(marks).where(marks.c.name == VALUE_NAME))


def _version(column: Column) -> sa.ColumnElement[bytes]:
    return sa.func.substr(endpoints.c[column], 1, 1, type_=sa.LargeBinary)
