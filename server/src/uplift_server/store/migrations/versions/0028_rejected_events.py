"""Add rejected events."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0028"
down_revision: str | Sequence[str] | None = "0027"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Create the table of rejected events."""
    op.create_table(
        "rejected_events",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("id", sa.LargeBinary(16), nullable=False, comment="from stream_seq and published_at"),
        sa.Column("account_seq", sa.BigInteger(), comment="NULL if the account is unknown"),
        sa.Column("subject", sa.Text(), nullable=False, comment="subject of the message"),
        sa.Column(
            "event_type", sa.Text(), comment="as given, at most 128 characters; also event_id and idempotency_key"
        ),
        sa.Column("event_id", sa.Text()),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("problem", sa.Text(), nullable=False, comment="JSON object, RFC 9457"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False, comment="size of the message"),
        sa.Column("stream_seq", sa.BigInteger(), nullable=False, comment="number of the message in the stream"),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.Column("rejected_at", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("id"),
    )
    op.create_index("rejected_events_by_account", "rejected_events", ["account_seq", "seq"])
    op.create_index("rejected_events_by_age", "rejected_events", ["rejected_at"])
