"""Whether something happened in an account: the numbers of what was added last."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.listening import SESSIONS_PER_ACCOUNT_MAX
from uplift_server.core.limits import REPLAYS_UNFINISHED_PER_ACCOUNT_MAX
from uplift_server.store.schema import audit_log, deliveries, events, listen_sessions, replays
from uplift_server.store.schema_statistics import rollups

EVENTS_LOOKED_AT: Final = 20
HOURS_LOOKED_AT: Final = 2
UNFINISHED_MAX: Final = 2 * REPLAYS_UNFINISHED_PER_ACCOUNT_MAX
"""Replays that are looked at: cancelled ones may still have something in flight."""
_STATUSES: Final = ("delivered", "failed", "held", "cancelled")


def newest(connection: Connection, account_seq: int) -> tuple[int, ...]:
    """The numbers of an account's newest entry in the audit log and of its newest events, 0 where there is none.

    Of several events: one may be committed behind one with a higher number. And how many attempts were made of the
    newest: those of tests move nothing else.
    """
    newest_events = (
        sa.select(events.c.seq)
        .where(events.c.account_seq == account_seq)
        .order_by(events.c.seq.desc())
        .limit(EVENTS_LOOKED_AT)
    )
    entry = (
        sa.select(audit_log.c.seq)
        .where(audit_log.c.account_seq == account_seq)
        .order_by(audit_log.c.seq.desc())
        .limit(1)
    )
    seqs = list(connection.scalars(newest_events)) or [0]
    attempts = sa.select(sa.func.sum(deliveries.c.attempts_made)).where(deliveries.c.event_seq == seqs[0])
    return connection.scalar(entry) or 0, connection.scalar(attempts) or 0, *seqs


def counted(connection: Connection, account_seq: int) -> tuple[tuple[int, ...], ...]:
    """How much is counted of an account's last hours: numbers follow a second or two after what they tell of."""
    columns = (rollups.c.at, rollups.c.deliveries, rollups.c.attempts, *(rollups.c[name] for name in _STATUSES))
    query = (
        sa.select(*columns)
        .where(rollups.c.endpoint_seq == 0, rollups.c.account_seq == account_seq)
        .order_by(rollups.c.at.desc())
        .limit(HOURS_LOOKED_AT)
    )
    return tuple(tuple(row) for row in connection.execute(query))


def replays_under_way(connection: Connection, account_seq: int) -> tuple[tuple[int, ...], ...]:
    """How far each unfinished replay of an account is."""
    columns = (
        replays.c.seq,
        replays.c.updated_at,
        replays.c.counted_through,
        replays.c.delivered,
        replays.c.failed,
        replays.c.skipped,
    )
    query = (
        sa.select(*columns)
        .where(replays.c.account_seq == account_seq, sa.text("completed_at IS NULL"))
        .order_by(replays.c.seq)
        .limit(UNFINISHED_MAX)
    )
    return tuple(tuple(row) for row in connection.execute(query))


def listeners(connection: Connection, account_seq: int) -> tuple[tuple[int, ...], ...]:
    """When each listen session of an account was last heard of: as it came, went, or answered."""
    query = (
        sa.select(listen_sessions.c.seq, listen_sessions.c.last_seen_at)
        .where(listen_sessions.c.account_seq == account_seq)
        .order_by(listen_sessions.c.seq)
        .limit(SESSIONS_PER_ACCOUNT_MAX)
    )
    return tuple(tuple(row) for row in connection.execute(query))
