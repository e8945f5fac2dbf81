"""The state of the database across all accounts: backlog, replays and unsent emails."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.store import backlog, status_sql
from uplift_server.store.backlog import Backlog
from uplift_server.store.schema import events, notices, replays
from uplift_server.store.schema_statistics import rollups

EMAILS_MAX: Final = 10_000
"""Maximum number of unsent emails to read."""
_LEASED: Final = f"SELECT count(*) FROM (SELECT 1 FROM {{table}} WHERE {status_sql.leased('d')} LIMIT :limit) counted"  # noqa: S608
_ENDED_OR_HELD: Final = rollups.c.delivered + rollups.c.failed + rollups.c.held + rollups.c.cancelled
_UNFINISHED: Final = (ReplayState.RUNNING, ReplayState.PAUSED)


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """The state of the database. Deliveries and emails are counted up to a limit. Timestamps are Unix ms."""

    backlog: Backlog
    pending: int
    """All pending deliveries, according to the statistics."""
    leased: int
    """Deliveries that processes have leased, waiting or in flight."""
    mails: int
    oldest_mail_at: int | None
    """When the oldest unsent email was added."""
    replays: Mapping[ReplayState, int]
    """Unfinished replays by state."""
    oldest_event_at: int | None
    """When the oldest stored event was accepted."""


def read(connection: Connection, *, now: int, limit: int) -> DatabaseState:
    """Read the state at `now` (Unix ms). Count up to `limit` deliveries of each kind."""
    waiting = backlog.count(connection, now=now, limit=limit)
    # Without table statistics, SQLite scans all deliveries.
    named = "deliveries d INDEXED BY deliveries_leased" if connection.dialect.name == "sqlite" else "deliveries d"
    leased = connection.scalars(sa.text(_LEASED.format(table=named)), {"limit": limit}).one()
    of_all = sa.select(sa.func.sum(rollups.c.deliveries - _ENDED_OR_HELD))
    pending = connection.scalar(of_all.where(rollups.c.endpoint_seq == 0, rollups.c.account_seq == 0)) or 0
    unsent = sa.select(notices.c.created_at).where(sa.text("due_at IS NOT NULL")).limit(EMAILS_MAX).subquery()
    mails, oldest_mail_at = connection.execute(sa.select(sa.func.count(), sa.func.min(unsent.c.created_at))).one()
    by_state = sa.select(replays.c.state, sa.func.count()).where(sa.text("completed_at IS NULL"))
    states = {ReplayState(state): count for state, count in connection.execute(by_state.group_by(replays.c.state))}
    oldest_event_at = connection.scalars(sa.select(events.c.created_at).order_by(events.c.seq).limit(1)).first()
    unfinished = {state: states.get(state, 0) for state in _UNFINISHED}
    return DatabaseState(waiting, int(pending), leased, mails, oldest_mail_at, unfinished, oldest_event_at)
