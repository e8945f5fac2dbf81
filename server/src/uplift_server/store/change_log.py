"""The change log: changes to the objects that every process caches.

Triggers record each change with the ID of its transaction. Transactions do not commit in ID order, so a
reader continues at the oldest transaction that was active when it last read. The reader sees some changes twice but
does not miss any. Old changes are pruned. A reader that missed pruned changes must read all objects again.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import server_values
from uplift_server.store.schema import accounts, api_keys, endpoints, event_types, replays, service_keys
from uplift_server.store.schema_processes import directory_changes

_PRUNED: Final = "directory_changes.forgotten"
"""The name of the server value that contains the transaction ID below which changes were pruned."""
_OLDEST_ACTIVE_XID: Final = sa.text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
_NOTE: Final = sa.text(
    "INSERT INTO directory_changes (kind, subject_seq, xid)"
    " VALUES (:kind, :subject_seq, pg_current_xact_id()::text::bigint)"
    " ON CONFLICT (kind, subject_seq) DO UPDATE SET xid = EXCLUDED.xid"
)
_NEWEST_XID: Final = sa.select(sa.func.coalesce(sa.func.max(directory_changes.c.xid), 0))
_FOREIGN: Final[Mapping[str, sa.ColumnElement[bool]]] = {
    "sqlite": sa.false(),
    "postgresql": directory_changes.c.xid >= sa.text("pg_snapshot_xmax(pg_current_snapshot())::text::bigint"),
}
"""The condition, by dialect, that selects changes restored from a dump of another database server.

Such a change has a transaction ID that this database server has not assigned yet.
"""
_SINCE: Final = {
    dialect: sa.select(directory_changes)
    .where(directory_changes.c.xid >= sa.bindparam("first_xid"), ~is_foreign)
    .order_by(directory_changes.c.xid)
    for dialect, is_foreign in _FOREIGN.items()
}
SUBJECTS: Final = {
    "accounts": (accounts.c.seq, accounts.c.deleted_at),
    "event_types": (event_types.c.seq, event_types.c.deleted_at),
    "api_keys": (api_keys.c.seq, api_keys.c.revoked_at),
    "service_keys": (service_keys.c.seq, service_keys.c.revoked_at),
    "endpoints": (endpoints.c.seq, endpoints.c.deleted_at),
    "replays": (replays.c.seq, replays.c.completed_at),
}
"""For each kind of cached object, its sequence number column, and the column that is NULL while the object is cached.

Parents come before their children.
"""


class Change(NamedTuple):
    """One creation, update or deletion of an object."""

    kind: str
    """The name of the object's table."""
    subject_seq: int
    xid: int


class Changes(NamedTuple):
    """The changes that one read found, and the transaction ID at which the next read starts."""

    found: list[Change]
    next_xid: int
    pruned_before: int
    """The transaction ID below which changes may be missing, because they were pruned."""


def oldest_active_xid(connection: Connection) -> int:
    """Return the ID of the oldest active transaction. All transactions with lower IDs have ended."""
    return _next_xid(connection, pruned_before(connection))


def _next_xid(connection: Connection, pruned_xid: int) -> int:
    if connection.dialect.name == "sqlite":
        # SQLite writes one transaction at a time, so every visible transaction has ended. Like PostgreSQL's transaction
        # IDs, the returned IDs never decrease, even if all changes are pruned.
        return max(int(connection.scalars(_NEWEST_XID).one()) + 1, pruned_xid)
    return int(connection.scalars(_OLDEST_ACTIVE_XID).one())


def since(connection: Connection, xid: int) -> Changes:
    """Return the changes made by transactions with an ID of `xid` or higher.

    The caller's transaction must read one snapshot.
    """
    pruned_xid = pruned_before(connection)
    next_xid = _next_xid(connection, pruned_xid)
    rows = connection.execute(_SINCE[connection.dialect.name], {"first_xid": xid})
    return Changes([Change(*row) for row in rows], next_xid, pruned_xid)


def pruned_before(connection: Connection) -> int:
    """Return the transaction ID below which changes may be missing, because they were pruned."""
    return server_values.get(connection, [_PRUNED]).get(_PRUNED, 0)


def note(connection: Connection, kind: str, subject_seqs: Sequence[int]) -> None:
    """Record changes that the triggers ignore, so that all processes read the objects again.

    Do nothing on SQLite, which has only one process.
    """
    if connection.dialect.name == "postgresql" and subject_seqs:
        connection.execute(_NOTE, [{"kind": kind, "subject_seq": seq} for seq in sorted(subject_seqs)])


def prune(connection: Connection, xid: int, *, limit: int) -> int:
    """Delete up to `limit` changes made by transactions with IDs lower than `xid`.

    Also delete changes restored from a dump of another database server. Store `xid`, so that readers detect that they
    missed pruned changes. Return the number of deleted changes.
    """
    server_values.replace(connection, _PRUNED, {_PRUNED: xid})
    key = sa.tuple_(directory_changes.c.kind, directory_changes.c.subject_seq)
    old = sa.or_(directory_changes.c.xid < xid, _FOREIGN[connection.dialect.name])
    some = sa.select(directory_changes.c.kind, directory_changes.c.subject_seq).where(old).limit(limit)
    # The outer condition keeps the rows of objects that have changed again in the meantime.
    return connection.execute(sa.delete(directory_changes).where(old, key.in_(some))).rowcount


def subjects(connection: Connection, kind: str, *, after: int, limit: int) -> list[int]:
    """List the sequence numbers of objects of one kind, in ascending order.

    Return up to `limit` numbers that are higher than `after`.
    """
    seq, ended_at = SUBJECTS[kind]
    query = sa.select(seq).where(seq > after, ended_at.is_(None)).order_by(seq).limit(limit)
    return list(connection.scalars(query))
