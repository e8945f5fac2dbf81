"""The table of operational events that are not yet stored as events, and the trigger that counts failed deliveries."""

from typing import Final

import sqlalchemy as sa

from uplift_server.core.events.operational import OPERATIONAL_TYPES
from uplift_server.store import status_sql
from uplift_server.store.schema import Seq, Uuid, metadata
from uplift_server.store.status_triggers import create_status_trigger

operational_events = sa.Table(
    "operational_events",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False, unique=True, comment="also the idempotency key of the event"),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("account_seq", sa.BigInteger, nullable=False, comment="account of the endpoint"),
    sa.Column("endpoint_seq", sa.BigInteger, nullable=False, comment="endpoint that does not receive the event"),
    sa.Column("facts", sa.Text, nullable=False, comment="JSON object"),
    comment="operational events that are not stored as events yet",
)

failed_deliveries = sa.Table(
    "failed_deliveries",
    metadata,
    sa.Column("endpoint_seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False, comment="number of failed deliveries since the previous event"),
    sa.Column("first_failed_at", sa.BigInteger, nullable=False),
    sa.Column("last_event_seq", sa.BigInteger, nullable=False, comment="event of the latest failed delivery"),
    sa.Column("due_at", sa.BigInteger, nullable=False, comment="when the next event about them is due"),
    sqlite_with_rowid=False,
    comment="failed deliveries of endpoints that no operational event has reported yet",
)
sa.Index("failed_deliveries_due", failed_deliveries.c.due_at)

# A resent, replayed or test delivery that returns to `failed` is not counted: its `resume_status` is not NULL.
_IS_COUNTED: Final = (
    f"NEW.status = {status_sql.FAILED} AND OLD.status IN ({status_sql.OPEN}) AND OLD.resume_status IS NULL"
    f" AND NEW.trigger <> {status_sql.TEST}"
)
_NAMES: Final = ", ".join(f"'{name}'" for name in sorted(OPERATIONAL_TYPES))
# A failed delivery of an operational event is not counted. Otherwise, operational events could
# cause more operational events without end.
_COUNT: Final = f"""\
INSERT INTO failed_deliveries (endpoint_seq, account_seq, failed, first_failed_at, last_event_seq, due_at)
SELECT NEW.endpoint_seq, NEW.account_seq, 1, coalesce(NEW.completed_at, 0), NEW.event_seq, coalesce(NEW.completed_at, 0)
FROM events e JOIN event_types t ON t.seq = e.type_seq
WHERE e.seq = NEW.event_seq AND t.name NOT IN ({_NAMES})
ON CONFLICT (endpoint_seq) DO UPDATE SET
    failed = failed_deliveries.failed + 1,
    first_failed_at = CASE WHEN failed_deliveries.failed = 0
        THEN EXCLUDED.first_failed_at ELSE failed_deliveries.first_failed_at END,
    last_event_seq = EXCLUDED.last_event_seq;"""  # noqa: S608 - contains only constants
create_status_trigger("deliveries_count_failed", condition=_IS_COUNTED, statement=_COUNT)
