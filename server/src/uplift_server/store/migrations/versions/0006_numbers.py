"""Add hourly statistics, which count only the events and attempts that are stored after this migration."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | Sequence[str] | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TOLD: Final = (
    "CASE WHEN NEW.status = 1 AND NEW.last_outcome = 0 AND NEW.attempts_made > OLD.attempts_made THEN 0"
    " ELSE NEW.status END"
)
_NOTE_CHANGES: Final = (
    "CREATE TRIGGER deliveries_note_changes AFTER UPDATE OF status ON deliveries"
    f" WHEN OLD.status <> {_TOLD} AND NEW.trigger <> 3"
    " BEGIN INSERT INTO delivery_changes"
    " (event_seq, endpoint_seq, account_seq, created_at, old_status, new_status)"
    " SELECT NEW.event_seq, NEW.endpoint_seq, NEW.account_seq, created_at, OLD.status,"
    f" {_TOLD} FROM events WHERE seq = NEW.event_seq; END"
)
_NOTE_CHANGES_ON_POSTGRESQL: Final = (
    "CREATE FUNCTION deliveries_note_changes() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO delivery_changes (event_seq, endpoint_seq, account_seq, created_at, old_status, new_status)"
    " SELECT NEW.event_seq, NEW.endpoint_seq, NEW.account_seq, created_at, OLD.status,"
    f" {_TOLD} FROM events WHERE seq = NEW.event_seq; RETURN NULL; END $$",
    "CREATE TRIGGER deliveries_note_changes AFTER UPDATE OF status ON deliveries FOR EACH ROW"
    f" WHEN (OLD.status <> {_TOLD} AND NEW.trigger <> 3) EXECUTE FUNCTION deliveries_note_changes()",
)


def upgrade() -> None:
    """Add the statistics tables and a trigger. Counting starts after the newest event and attempt."""
    op.create_table(
        "rollups",
        sa.Column("endpoint_seq", sa.BigInteger(), nullable=False, comment="0 for all endpoints of the account"),
        sa.Column("account_seq", sa.BigInteger(), nullable=False, comment="0 for all accounts"),
        sa.Column("at", sa.BigInteger(), nullable=False, comment="start of the hour"),
        sa.Column("deliveries", sa.BigInteger(), nullable=False),
        sa.Column("delivered", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("cancelled", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("first_attempts", sa.BigInteger(), nullable=False),
        sa.Column("first_delivered", sa.BigInteger(), nullable=False),
        sa.Column("outcomes", sa.Text(), nullable=False, comment="number of attempts by outcome, such as `0:17 5:1`"),
        sa.Column(
            "durations", sa.Text(), nullable=False, comment="number of attempts by duration class, in the same form"
        ),
        sa.PrimaryKeyConstraint("endpoint_seq", "account_seq", "at"),
        sqlite_with_rowid=False,
    )
    op.create_index("rollups_by_age", "rollups", ["at"])
    op.create_table(
        "delivery_changes",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("event_seq", sa.BigInteger(), nullable=False),
        sa.Column("endpoint_seq", sa.BigInteger(), nullable=False),
        sa.Column("account_seq", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at",
            sa.BigInteger(),
            nullable=False,
            comment="timestamp of the event, which may be deleted by now",
        ),
        sa.Column("old_status", sa.SmallInteger(), nullable=False),
        sa.Column("new_status", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        comment="changes of status that are not counted yet",
    )
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in (_NOTE_CHANGES,) if on_sqlite else _NOTE_CHANGES_ON_POSTGRESQL:
        op.execute(statement)
    for name, table in (("events", "events"), ("attempts", "attempts"), ("began", "events")):
        op.execute(f"INSERT INTO marks (name, value) SELECT 'numbers.{name}', coalesce(max(seq), 0) FROM {table}")  # noqa: S608
