"""Duties: who does what one process does for all. A duty not taken anew in time is anybody's."""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.operations.singleton_jobs import LEASE_MS, SingletonJob, can_take_lease
from uplift_server.store.schema_processes import duties

# Of several that begin on a new database at the same time one stores it, and the others wait for that.
_FIRST_TAKEN = sa.text(
    "INSERT INTO duties (name, process_seq, until) VALUES (:name, :by, :until) ON CONFLICT DO NOTHING"
)


def take(connection: Connection, wanted: Collection[SingletonJob], *, by: int, now: int) -> frozenset[SingletonJob]:
    """Take, or keep, those of the duties that no other process has; gives those it has now, for LEASE_MS."""
    query = sa.select(duties).where(duties.c.name.in_(wanted))
    known = {SingletonJob(row.name): (row.process_seq, row.until) for row in connection.execute(query)}
    got = {duty for duty in wanted if can_take_lease(*known.get(duty, (0, 0)), by=by, now_ms=now)}
    # Another may take them meanwhile, in the same order: whoever comes second waits, and gets none of them.
    for duty in sorted(got):
        if duty not in known:
            taken = connection.execute(_FIRST_TAKEN, {"name": duty, "by": by, "until": now + LEASE_MS})
        else:
            held_by, until = known[duty]
            change = sa.update(duties).where(
                duties.c.name == duty, duties.c.process_seq == held_by, duties.c.until == until
            )
            taken = connection.execute(change.values(process_seq=by, until=now + LEASE_MS))
        if taken.rowcount == 0:
            got.discard(duty)
    return frozenset(got)


def leave(connection: Connection, *, by: int) -> None:
    """A process has no duties any more: they are anybody's."""
    connection.execute(sa.update(duties).where(duties.c.process_seq == by).values(process_seq=0))
