"""The statistics tables, and the trigger that records delivery status changes.

The trigger does not record that a delivery succeeded, because the stored attempts already contain this information. It
records only the less frequent changes: a delivery fails, or is held, cancelled, released or resent.
"""

from typing import Final

import sqlalchemy as sa

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.store import status_sql
from uplift_server.store.schema import Seq, metadata
from uplift_server.store.status_triggers import create_status_trigger


def _statistics(name: str, bucket: str) -> sa.Table:
    """Create a table with one row for each scope (endpoint, event type, account or all accounts) and period."""
    return sa.Table(
        name,
        metadata,
        # A negative value stands for the event type with the corresponding positive number.
        sa.Column("endpoint_seq", sa.BigInteger, primary_key=True, comment="0 for all endpoints of the account"),
        sa.Column("account_seq", sa.BigInteger, primary_key=True, comment="0 for all accounts"),
        sa.Column("at", sa.BigInteger, primary_key=True, comment=f"start of the {bucket}"),
        sa.Column("deliveries", sa.BigInteger, nullable=False),
        sa.Column("delivered", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("cancelled", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("first_attempts", sa.BigInteger, nullable=False),
        sa.Column("first_delivered", sa.BigInteger, nullable=False),
        sa.Column("outcomes", sa.Text, nullable=False, comment="number of attempts by outcome, such as `0:17 5:1`"),
        sa.Column(
            "durations", sa.Text, nullable=False, comment="number of attempts by duration class, in the same form"
        ),
        sqlite_with_rowid=False,
    )


rollups = _statistics("rollups", "hour")
sa.Index("rollups_by_age", rollups.c.at)
minute_rollups = _statistics("minute_rollups", "minute")
sa.Index("minute_rollups_by_age", minute_rollups.c.at)

delivery_totals = sa.Table(
    "delivery_totals",
    metadata,
    sa.Column("endpoint_seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("pending", sa.BigInteger, nullable=False),
    sa.Column("held", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="open deliveries of endpoints that have any",
)

delivery_changes = sa.Table(
    "delivery_changes",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("event_seq", sa.BigInteger, nullable=False),
    sa.Column("endpoint_seq", sa.BigInteger, nullable=False),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column(
        "created_at", sa.BigInteger, nullable=False, comment="timestamp of the event, which may be deleted by now"
    ),
    sa.Column("old_status", sa.SmallInteger, nullable=False),
    sa.Column("new_status", sa.SmallInteger, nullable=False),
    comment="changes of status that are not counted yet",
)

# Delivered deliveries are counted by their successful attempts. To count such a delivery only once, its new status is
# recorded as pending. A successful attempt increases `attempts_made` and sets `last_outcome` to delivered (0). If a
# delivery returns to `delivered` without a successful attempt, at most one of these two conditions is true. Test
# deliveries are never counted.
_NEW_STATUS: Final = (
    f"CASE WHEN NEW.status = {status_sql.DELIVERED} AND NEW.last_outcome = {int(Outcome.DELIVERED)}"
    f" AND NEW.attempts_made > OLD.attempts_made THEN {status_sql.PENDING}"
    " ELSE NEW.status END"
)
_IS_RECORDED: Final = f"OLD.status <> {_NEW_STATUS} AND NEW.trigger <> {status_sql.TEST}"
_RECORD: Final = (
    "INSERT INTO delivery_changes (event_seq, endpoint_seq, account_seq, created_at, old_status, new_status)"  # noqa: S608 - contains only constants
    f" SELECT NEW.event_seq, NEW.endpoint_seq, NEW.account_seq, created_at, OLD.status, {_NEW_STATUS}"
    " FROM events WHERE seq = NEW.event_seq;"
)
create_status_trigger("deliveries_note_changes", condition=_IS_RECORDED, statement=_RECORD)
