"""Add secret rotation, warnings, held deliveries, replays, emails and the audit log."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# In SQLite, only INTEGER PRIMARY KEY is an alias of the row ID.
_SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns and tables. Stored data does not change."""
    for column in (
        sa.Column(
            "previous_secret", sa.LargeBinary(), comment="encrypted; also signs until `previous_expires_at`"
        ),
        sa.Column("previous_expires_at", sa.BigInteger()),
        sa.Column(
            "uplift_header_new",
            sa.Boolean(),
            nullable=False,
            server_default=sa.false(),
            comment="whether x-uplift-signature-256 uses `secret` during an overlap",
        ),
        sa.Column(
            "excused_ms",
            sa.BigInteger(),
            nullable=False,
            server_default="0",
            comment="time since `failing_since` that does not count",
        ),
        sa.Column("warned_at", sa.BigInteger(), comment="if before `failing_since`, a recovery email is still due"),
        sa.Column("state_since", sa.BigInteger(), comment="NULL since creation"),
        sa.Column("held_action", sa.SmallInteger(), comment="action for the held deliveries"),
        sa.Column("held_through", sa.BigInteger(), comment="last event to which `held_action` applies"),
    ):
        op.add_column("endpoints", column)
    op.add_column(
        "deliveries",
        sa.Column("replay_seq", sa.BigInteger(), comment="replay that released the delivery and has not counted it"),
    )
    op.create_index(
        "deliveries_replayed",
        "deliveries",
        ["replay_seq", "event_seq"],
        sqlite_where=sa.text("replay_seq IS NOT NULL"),
        postgresql_where=sa.text("replay_seq IS NOT NULL"),
    )
    op.create_table(
        "replays",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("account_seq", sa.BigInteger(), nullable=False),
        sa.Column("endpoint_seq", sa.BigInteger(), nullable=False),
        sa.Column("statuses", sa.Text(), nullable=False, comment="JSON list of numbers"),
        sa.Column("types", sa.Text(), nullable=False, comment="JSON list of names and patterns; empty for all"),
        sa.Column(
            "type_seqs", sa.Text(), nullable=False, comment="JSON list of the types that matched at creation"
        ),
        sa.Column("created_after", sa.BigInteger()),
        sa.Column("created_before", sa.BigInteger()),
        sa.Column("rate_per_second", sa.Integer(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False, comment="number of deliveries counted so far"),
        sa.Column("counted_through", sa.BigInteger(), nullable=False, comment="last event that is counted"),
        sa.Column("next_event_seq", sa.BigInteger(), nullable=False, comment="next event of the replay"),
        sa.Column("last_event_seq", sa.BigInteger(), nullable=False, comment="last event of the replay"),
        sa.Column("delivered", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("failed", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("skipped", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("completed_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("replays_by_account", "replays", ["account_seq", "seq"])
    op.create_index(
        "replays_unfinished",
        "replays",
        ["account_seq", "seq"],
        sqlite_where=sa.text("completed_at IS NULL"),
        postgresql_where=sa.text("completed_at IS NULL"),
    )
    op.create_table(
        "notices",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("account_seq", sa.BigInteger(), comment="NULL for emails to the operator, or about no account"),
        sa.Column("endpoint_seq", sa.BigInteger()),
        sa.Column("recipient", sa.Text(), nullable=False, comment="email address"),
        sa.Column("facts", sa.Text(), nullable=False, comment="content of the email, as a JSON object"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), comment="time of the next attempt; NULL after the last"),
        sa.Column("attempts_made", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("sent_at", sa.BigInteger()),
        sa.Column("last_error", sa.Text()),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
    )
    op.create_index(
        "notices_due",
        "notices",
        ["due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index("notices_by_age", "notices", ["created_at"])
    op.create_table(
        "audit_log",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("account_seq", sa.BigInteger(), comment="NULL if it concerns no account"),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor_kind", sa.SmallInteger(), nullable=False),
        sa.Column("actor_id", sa.Text(), comment="key or member; NULL for the system"),
        sa.Column("actor_name", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="ID or name of the object"),
        sa.Column("details", sa.Text(), nullable=False, comment="JSON object"),
        sa.Column("address", sa.Text(), comment="source address of the request"),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("audit_log_by_account", "audit_log", ["account_seq", "seq"])
    op.create_index("audit_log_by_age", "audit_log", ["at"])
    op.create_table(
        "marks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sqlite_with_rowid=False,
        comment="server values by name",
    )
