"""What was changed of that which every process holds in memory.

Triggers note it in the transaction that changes it, by that transaction's number. Transactions become visible in
another order than that of their numbers, so whoever looks asks from a number on below which nothing was going on when
they last looked: some they see twice, none they miss.
"""

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.schema_processes import directory_changes


class Change(NamedTuple):
    """Something was created, changed or deleted."""

    kind: str
    """Its table."""
    subject_seq: int
    xid: int


class Changes(NamedTuple):
    """What was found, and from which transaction on to look the next time."""

    found: list[Change]
    next_xid: int


def horizon(connection: Connection) -> int:
    """The number of the oldest transaction that is still going on: all below it are visible."""
    if connection.dialect.name == "sqlite":
        # A transaction at a time: whatever is visible is over.
        return (connection.scalars(sa.select(sa.func.max(directory_changes.c.xid))).one() or 0) + 1
    query = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
    return int(connection.scalars(sa.text(query)).one())


def since(connection: Connection, xid: int) -> Changes:
    """What transactions from a number on have changed. To be run on one snapshot."""
    next_xid = horizon(connection)
    query = (
        sa.select(directory_changes)
        .where(directory_changes.c.xid >= xid, ~_is_foreign(connection))
        .order_by(directory_changes.c.xid)
    )
    return Changes([Change(*row) for row in connection.execute(query)], next_xid)


def forget(connection: Connection, xid: int) -> int:
    """Remove the notes of transactions below a number, which nobody asks for any more; how many."""
    query = sa.delete(directory_changes).where(sa.or_(directory_changes.c.xid < xid, _is_foreign(connection)))
    return connection.execute(query).rowcount


def _is_foreign(connection: Connection) -> sa.ColumnElement[bool]:
    """Whether a note is of another server, from which a dump brought it: no transaction has had its number here yet."""
    if connection.dialect.name == "sqlite":
        return sa.false()
    return directory_changes.c.xid >= sa.text("pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
