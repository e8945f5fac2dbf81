"""Add the trace contexts of events."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | Sequence[str] | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Create the table of trace contexts."""
    op.create_table(
        "trace_parents",
        sa.Column("event_seq", sa.BigInteger(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=False, comment="trace context as received from the sender"),
        sa.PrimaryKeyConstraint("event_seq"),
        sqlite_with_rowid=False,
    )
