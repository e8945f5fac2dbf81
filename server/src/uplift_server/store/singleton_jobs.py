"""Leader leases of singleton jobs. Only the process with the lease of a job runs the job.

When a lease expires, another process can take it.
"""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.operations.singleton_jobs import LEASE_MS, SingletonJob, can_take_lease
from uplift_server.store.schema_processes import duties

# If several processes start on a new database, one inserts the row, and the others wait for it.
_INSERT = sa.text(
    "INSERT INTO duties (name, process_seq, until) VALUES (:name, :process_id, :until) ON CONFLICT DO NOTHING"
)


def take(
    connection: Connection, wanted: Collection[SingletonJob], *, process_id: int, now: int
) -> frozenset[SingletonJob]:
    """Take or renew the leases of the wanted jobs that no other process holds. Each lease lasts LEASE_MS.

    Return the jobs whose lease this process now holds.
    """
    query = sa.select(duties).where(duties.c.name.in_(wanted))
    known = {SingletonJob(row.name): (row.process_seq, row.until) for row in connection.execute(query)}
    got = {job for job in wanted if can_take_lease(*known.get(job, (0, 0)), by=process_id, now_ms=now)}
    # Another process can take these jobs at the same time, in the same order. The second process waits and takes none.
    for job in sorted(got):
        if job not in known:
            taken = connection.execute(_INSERT, {"name": job, "process_id": process_id, "until": now + LEASE_MS})
        else:
            held_by, until = known[job]
            change = sa.update(duties).where(
                duties.c.name == job, duties.c.process_seq == held_by, duties.c.until == until
            )
            taken = connection.execute(change.values(process_seq=process_id, until=now + LEASE_MS))
        if taken.rowcount == 0:
            got.discard(job)
    return frozenset(got)


def release(connection: Connection, *, process_id: int) -> None:
    """Release all leases of a process."""
    connection.execute(sa.update(duties).where(duties.c.process_seq == process_id).values(process_seq=0))
