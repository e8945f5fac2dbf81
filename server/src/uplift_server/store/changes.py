"""Values that change when an account's data changes. Live pages compare them to detect changes."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.listening import SESSIONS_PER_ACCOUNT_MAX
from uplift_server.core.limits import REPLAYS_UNFINISHED_PER_ACCOUNT_MAX
from uplift_server.store.schema import audit_log, deliveries, events, listen_sessions, replays
from uplift_server.store.schema_statistics import rollups

EVENTS_MAX: Final = 20
ENTRIES_MAX: Final = 5
HOURS_MAX: Final = 2
UNFINISHED_MAX: Final = 2 * REPLAYS_UNFINISHED_PER_ACCOUNT_MAX
"""The maximum number of an account's unfinished replays to read.

It exceeds the limit on unfinished replays, because a cancelled replay can still have attempts in flight.
"""
_STATUSES: Final = ("delivered", "failed", "held", "cancelled")


def newest_seqs(connection: Connection, account_seq: int) -> tuple[int, ...]:
    """Return the attempt count of an account's newest event, and the account's highest event and audit entry numbers.

    The result contains several numbers of each kind, because a row can become visible after a row with a higher number.
    It contains the attempt count, because the end of a test attempt adds neither an event nor an audit entry.
    """
    newest_events = (
        sa.select(events.c.seq)
        .where(events.c.account_seq == account_seq)
        .order_by(events.c.seq.desc())
        .limit(EVENTS_MAX)
    )
    newest_entries = (
        sa.select(audit_log.c.seq)
        .where(audit_log.c.account_seq == account_seq)
        .order_by(audit_log.c.seq.desc())
        .limit(ENTRIES_MAX)
    )
    seqs = list(connection.scalars(newest_events)) or [0]
    attempts = sa.select(sa.func.sum(deliveries.c.attempts_made)).where(deliveries.c.event_seq == seqs[0])
    return connection.scalar(attempts) or 0, *seqs, *connection.scalars(newest_entries)


def hourly_counts(connection: Connection, account_seq: int) -> tuple[tuple[int, ...], ...]:
    """Return the account's statistics for the latest hours, newest first.

    The statistics lag by 1 or 2 seconds, or by 10 seconds while the process is busy.
    """
    columns = (rollups.c.at, rollups.c.deliveries, rollups.c.attempts, *(rollups.c[name] for name in _STATUSES))
    query = (
        sa.select(*columns)
        .where(rollups.c.endpoint_seq == 0, rollups.c.account_seq == account_seq)
        .order_by(rollups.c.at.desc())
        .limit(HOURS_MAX)
    )
    return tuple(tuple(row) for row in connection.execute(query))


def unfinished_replays(connection: Connection, account_seq: int) -> tuple[tuple[int, ...], ...]:
    """Return the progress of the account's unfinished replays."""
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


def listen_sessions_seen(connection: Connection, account_seq: int) -> tuple[tuple[int, ...], ...]:
    """Return each listen session's number, and the time when its client was last active.

    A client is active when it connects, disconnects or sends a response.
    """
    query = (
        sa.select(listen_sessions.c.seq, listen_sessions.c.last_seen_at)
        .where(listen_sessions.c.account_seq == account_seq)
        .order_by(listen_sessions.c.seq)
        .limit(SESSIONS_PER_ACCOUNT_MAX)
    )
    return tuple(tuple(row) for row in connection.execute(query))
