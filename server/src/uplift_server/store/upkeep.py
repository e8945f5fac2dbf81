"""Housekeeping of the store, in bites small enough to stand beside traffic in one transaction."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries import Status
from uplift_server.store.schema import attempts, deliveries, events, idempotency_keys, idempotent_creates


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one bite of retention did."""

    events: int
    through_seq: int
    """Every event up to this number was looked at."""
    done: bool
    """Whether nothing old enough is left behind it."""


def prune(connection: Connection, *, before: int, after_seq: int, limit: int) -> Pruned:
    """Delete events accepted before an instant (Unix ms) with all that belongs to them, from `after_seq` on.

    Events with a delivery that may still be attempted stay. So does the newest event, since its number is where the
    next ones begin.
    """
    newest = connection.scalar(sa.select(sa.func.max(events.c.seq))) or 0
    rows = connection.execute(
        sa.select(events.c.seq, events.c.created_at)
        .where(events.c.seq > after_seq, events.c.seq < newest)
        .order_by(events.c.seq)
        .limit(limit)
    ).all()
    old = [seq for seq, created_at in rows if created_at < before]
    if not old:
        return Pruned(0, after_seq, done=True)
    open_ones = set(
        connection.scalars(
            sa.select(deliveries.c.event_seq).where(
                deliveries.c.event_seq.in_(old), deliveries.c.status.in_([Status.PENDING, Status.HELD])
            )
        )
    )
    doomed = [seq for seq in old if seq not in open_ones]
    for table, column in (
        (attempts, attempts.c.event_seq),
        (deliveries, deliveries.c.event_seq),
        (events, events.c.seq),
    ):
        connection.execute(sa.delete(table).where(column.in_(doomed)))
    return Pruned(len(doomed), old[-1], done=len(old) < limit)


def prune_keys(connection: Connection, *, before: int, limit: int) -> int:
    """Forget idempotency keys used before an instant (Unix ms); how many rows went."""
    count = 0
    for table in (idempotency_keys, idempotent_creates):
        columns = (table.c.account_seq, table.c.key)
        old = sa.select(*columns).where(table.c.created_at < before).limit(limit)
        count += connection.execute(sa.delete(table).where(sa.tuple_(*columns).in_(old))).rowcount
    return count
