"""Leader leases for singleton jobs. Only the process that holds a job's lease runs the job.

When a lease expires, another process can take it.
"""

from collections.abc import Collection
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.operations.singleton_jobs import LEASE_MS, SingletonJob, can_take_lease
from uplift_server.store.schema_processes import duties

_GET: Final = sa.select(duties).where(duties.c.name.in_(sa.bindparam("names", expanding=True)))
# If the leases expire during the renewal, another process can lock the rows in another order. PostgreSQL then aborts
# one of the two transactions, and the process repeats its heartbeat.
_RENEW: Final = (
    sa.update(duties)
    .where(
        duties.c.name.in_(sa.bindparam("names", expanding=True)),
        duties.c.process_seq == sa.bindparam("process_id"),
        duties.c.until > sa.bindparam("now"),
    )
    .values(until=sa.bindparam("expires_at"))
    .returning(duties.c.name)
)
_TAKE: Final = (
    sa.update(duties)
    .where(
        duties.c.name == sa.bindparam("job"),
        duties.c.process_seq == sa.bindparam("held_by"),
        duties.c.until == sa.bindparam("held_until"),
    )
    .values(process_seq=sa.bindparam("process_id"), until=sa.bindparam("expires_at"))
)
# If several processes start on a new database, one inserts the row, and the others wait for it.
_INSERT = sa.text(
    "INSERT INTO duties (name, process_seq, until) VALUES (:job, :process_id, :expires_at) ON CONFLICT DO NOTHING"
)


def take(
    connection: Connection, wanted: Collection[SingletonJob], *, process_id: int, now: int
) -> frozenset[SingletonJob]:
    """Take or renew the leases for the jobs in `wanted`, except leases that another process holds.

    Each lease lasts LEASE_MS. Return the jobs whose lease this process now holds.
    """
    rows = connection.execute(_GET, {"names": list(wanted)})
    known = {SingletonJob(row.name): (row.process_seq, row.until) for row in rows}
    lease = {"process_id": process_id, "expires_at": now + LEASE_MS}
    held = [job for job, (held_by, until) in known.items() if held_by == process_id and until > now]
    got: set[SingletonJob] = set()
    if held:
        renewed = connection.scalars(_RENEW, {"names": held, "now": now, **lease})
        got.update(SingletonJob(name) for name in renewed)
    others = [job for job in wanted if job not in held]
    takeable = [job for job in others if can_take_lease(*known.get(job, (0, 0)), by=process_id, now_ms=now)]
    # Another process can take these jobs at the same time, in the same order. The second process waits and takes none.
    for job in sorted(takeable):
        if job in known:
            held_by, until = known[job]
            taken = connection.execute(_TAKE, {"job": job, "held_by": held_by, "held_until": until, **lease})
        else:
            taken = connection.execute(_INSERT, {"job": job, **lease})
        if taken.rowcount:
            got.add(job)
    return frozenset(got)


def release(connection: Connection, *, process_id: int) -> None:
    """Release all leases of a process."""
    connection.execute(sa.update(duties).where(duties.c.process_seq == process_id).values(process_seq=0))
