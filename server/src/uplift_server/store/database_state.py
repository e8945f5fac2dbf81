"""The state of the database across all accounts: backlog, replays and unsent emails."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.store import backlog, status_sql
from uplift_server.store import totals as open_totals
from uplift_server.store.backlog import Backlog
from uplift_server.store.schema import events, notices, replays
from uplift_server.store.totals import OpenCounts

EMAILS_MAX: Final = 10_000
"""Maximum number of unsent emails to count."""
_LEASED: Final = f"SELECT count(*) FROM (SELECT 1 FROM {{table}} WHERE {status_sql.leased('d')} LIMIT :limit) counted"  # noqa: S608
_UNFINISHED: Final = (ReplayState.RUNNING, ReplayState.PAUSED)


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """The state of the database across all accounts. Timestamps are Unix ms.

    Each count of deliveries or emails stops at a limit.
    """

    backlog: Backlog
    totals: Mapping[int, OpenCounts] | None
    """The counts of open deliveries by endpoint number. After an upgrade, None until the server has counted them."""
    leased: int
    """The number of leased deliveries, with or without an attempt in flight."""
    mails: int
    oldest_mail_at: int | None
    """When the oldest unsent email was added to the outbox."""
    replays: Mapping[ReplayState, int]
    """The number of unfinished replays by state."""
    oldest_event_at: int | None
    """When the server accepted the oldest stored event."""


def read(connection: Connection, *, now: int, limit: int) -> DatabaseState:
    """Read the state at `now` (Unix ms). Each count of deliveries stops at `limit`."""
    waiting = backlog.count(connection, now=now, limit=limit)
    # Name the index: without table statistics, SQLite would scan all deliveries.
    named = "deliveries d INDEXED BY deliveries_leased" if connection.dialect.name == "sqlite" else "deliveries d"
    leased = connection.scalars(sa.text(_LEASED.format(table=named)), {"limit": limit}).one()
    totals = open_totals.read(connection)
    unsent = sa.select(notices.c.created_at).where(sa.text("due_at IS NOT NULL")).limit(EMAILS_MAX).subquery()
    mails, oldest_mail_at = connection.execute(sa.select(sa.func.count(), sa.func.min(unsent.c.created_at))).one()
    by_state = sa.select(replays.c.state, sa.func.count()).where(sa.text("completed_at IS NULL"))
    states = {ReplayState(state): count for state, count in connection.execute(by_state.group_by(replays.c.state))}
    oldest_event_at = connection.scalars(sa.select(events.c.created_at).order_by(events.c.seq).limit(1)).first()
    unfinished = {state: states.get(state, 0) for state in _UNFINISHED}
    return DatabaseState(waiting, totals, leased, mails, oldest_mail_at, unfinished, oldest_event_at)
