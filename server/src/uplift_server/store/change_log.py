"""What was changed of that which every process holds in memory.

Triggers note it in the transaction that changes it, by that transaction's number. Transactions become visible in
another order than that of their numbers, so whoever looks asks from a number on below which nothing was going on when
they last looked: some they see twice, none they miss.

Old notes are removed. Whoever has not looked since then learns so, and has to read everything again.
"""

from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import server_values
from uplift_server.store.schema import accounts, api_keys, endpoints, event_types, replays
from uplift_server.store.schema_processes import directory_changes

_FORGOTTEN: Final = "directory_changes.forgotten"
"""The mark that tells below which transaction's number notes were removed."""
SUBJECTS: Final = {
    "accounts": (accounts.c.seq, accounts.c.deleted_at),
    "event_types": (event_types.c.seq, event_types.c.deleted_at),
    "api_keys": (api_keys.c.seq, api_keys.c.revoked_at),
    "endpoints": (endpoints.c.seq, endpoints.c.deleted_at),
    "replays": (replays.c.seq, replays.c.completed_at),
}
"""By kind: its number, and what is NULL while it is to be held in memory. Before others comes what those belong to."""


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
    forgotten: int
    """Below which transaction's number notes may be missing."""


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
    return Changes([Change(*row) for row in connection.execute(query)], next_xid, forgotten(connection))


def forgotten(connection: Connection) -> int:
    """Below which transaction's number notes may be missing."""
    return server_values.get(connection, [_FORGOTTEN]).get(_FORGOTTEN, 0)


def forget(connection: Connection, xid: int, *, limit: int) -> int:
    """Remove some of the notes of transactions below a number; how many."""
    server_values.replace(connection, _FORGOTTEN, {_FORGOTTEN: xid})
    key = sa.tuple_(directory_changes.c.kind, directory_changes.c.subject_seq)
    old = sa.or_(directory_changes.c.xid < xid, _is_foreign(connection))
    some = sa.select(directory_changes.c.kind, directory_changes.c.subject_seq).where(old).limit(limit)
    # What was changed once more meanwhile is old no longer.
    return connection.execute(sa.delete(directory_changes).where(old, key.in_(some))).rowcount


def subjects(connection: Connection, kind: str, *, after: int, limit: int) -> list[int]:
    """The numbers of what is to be held in memory of a kind, behind one."""
    seq, ended_at = SUBJECTS[kind]
    query = sa.select(seq).where(seq > after, ended_at.is_(None)).order_by(seq).limit(limit)
    return list(connection.scalars(query))


def _is_foreign(connection: Connection) -> sa.ColumnElement[bool]:
    """Whether a note is of another server, from which a dump brought it: no transaction has had its number here yet."""
    if connection.dialect.name == "sqlite":
        return sa.false()
    return directory_changes.c.xid >= sa.text("pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
