"""Add operational events, and a trigger that counts the deliveries that fail after this migration."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op

revision: str = "0027"
down_revision: str | Sequence[str] | None = "0026"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
# The trigger also counts deliveries that fail on 0.1.2 servers, which ignore the new tables.
needs_release = "0.1.2"

_IS_COUNTED: Final = (
    "NEW.status = 2 AND OLD.status IN (0, 3) AND OLD.resume_status IS NULL AND NEW.trigger <> 3"
)
_NAMES: Final = "'delivery.failed', 'endpoint.disabled', 'endpoint.recovered', 'endpoint.warned'"
_COUNT: Final = f"""\
INSERT INTO failed_deliveries (endpoint_seq, account_seq, failed, first_failed_at, last_event_seq, due_at)
SELECT NEW.endpoint_seq, NEW.account_seq, 1, coalesce(NEW.completed_at, 0), NEW.event_seq, coalesce(NEW.completed_at, 0)
FROM events e JOIN event_types t ON t.seq = e.type_seq
WHERE e.seq = NEW.event_seq AND t.name NOT IN ({_NAMES})
ON CONFLICT (endpoint_seq) DO UPDATE SET
    failed = failed_deliveries.failed + 1,
    first_failed_at = CASE WHEN failed_deliveries.failed = 0
        THEN EXCLUDED.first_failed_at ELSE failed_deliveries.first_failed_at END,
    last_event_seq = EXCLUDED.last_event_seq;"""
_ON_SQLITE: Final = (
    f"CREATE TRIGGER deliveries_count_failed AFTER UPDATE OF status ON deliveries WHEN {_IS_COUNTED}"
    f" BEGIN {_COUNT} END",
)
_ON_POSTGRESQL: Final = (
    "CREATE FUNCTION deliveries_count_failed() RETURNS trigger LANGUAGE plpgsql AS"
    f" $$ BEGIN {_COUNT} RETURN NULL; END $$",
    "CREATE TRIGGER deliveries_count_failed AFTER UPDATE OF status ON deliveries FOR EACH ROW"
    f" WHEN ({_IS_COUNTED}) EXECUTE FUNCTION deliveries_count_failed()",
)


def upgrade() -> None:
    """Create the trigger, and the tables for operational events and for failed delivery counts."""
    op.create_table(
        "operational_events",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.LargeBinary(16), nullable=False, comment="also the idempotency key of the event"),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("account_seq", sa.BigInteger(), nullable=False, comment="account of the endpoint"),
        sa.Column(
            "endpoint_seq", sa.BigInteger(), nullable=False, comment="endpoint that does not receive the event"
        ),
        sa.Column("facts", sa.Text(), nullable=False, comment="JSON object"),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
        comment="operational events that are not stored as events yet",
    )
    op.create_table(
        "failed_deliveries",
        sa.Column("endpoint_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("account_seq", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False, comment="number of failed deliveries since the previous event"),
        sa.Column("first_failed_at", sa.BigInteger(), nullable=False),
        sa.Column("last_event_seq", sa.BigInteger(), nullable=False, comment="event of the latest failed delivery"),
        sa.Column("due_at", sa.BigInteger(), nullable=False, comment="when the next event about them is due"),
        sa.PrimaryKeyConstraint("endpoint_seq"),
        sqlite_with_rowid=False,
        comment="failed deliveries of endpoints that no operational event has reported yet",
    )
    op.create_index("failed_deliveries_due", "failed_deliveries", ["due_at"])
    for statement in _ON_SQLITE if op.get_bind().dialect.name == "sqlite" else _ON_POSTGRESQL:
        op.execute(statement)
