"""Duties: who does what one process does for all. A duty not taken anew in time is anybody's."""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.duties import LASTS_MS, Duty, may_take
from uplift_server.store.schema_processes import duties


def take(connection: Connection, wanted: Collection[Duty], *, by: int, now: int) -> frozenset[Duty]:
    """Take, or keep, those of the duties that no other process has; gives those it has now, for LASTS_MS."""
    query = sa.select(duties).where(duties.c.name.in_(wanted))
    known = {Duty(row.name): (row.process_seq, row.until) for row in connection.execute(query)}
    got = {duty for duty in wanted if may_take(*known.get(duty, (0, 0)), by=by, now_ms=now)}
    for duty in sorted(got):
        if duty not in known:
            connection.execute(sa.insert(duties).values(name=duty, process_seq=by, until=now + LASTS_MS))
            continue
        # Another may have taken it since it was read.
        held_by, until = known[duty]
        change = (
            sa.update(duties)
            .where(duties.c.name == duty, duties.c.process_seq == held_by, duties.c.until == until)
            .values(process_seq=by, until=now + LASTS_MS)
        )
        if connection.execute(change).rowcount == 0:
            got.discard(duty)
    return frozenset(got)


def drop(connection: Connection, *, by: int) -> None:
    """Leave all duties of a process to others."""
    connection.execute(sa.update(duties).where(duties.c.process_seq == by).values(process_seq=0))
