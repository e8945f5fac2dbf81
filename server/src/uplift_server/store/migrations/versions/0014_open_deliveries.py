"""Add statistics by minute, and the number of open deliveries for each endpoint.

The statistics updater fills the new tables later.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | Sequence[str] | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Create the tables for minute statistics and for open deliveries."""
    op.create_table(
        "minute_rollups",
        sa.Column("endpoint_seq", sa.BigInteger(), nullable=False, comment="0 for all endpoints of the account"),
        sa.Column("account_seq", sa.BigInteger(), nullable=False, comment="0 for all accounts"),
        sa.Column("at", sa.BigInteger(), nullable=False, comment="start of the minute"),
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
    op.create_index("minute_rollups_by_age", "minute_rollups", ["at"])
    op.create_table(
        "delivery_totals",
        sa.Column("endpoint_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("pending", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint_seq"),
        sqlite_with_rowid=False,
        comment="open deliveries of endpoints that have any",
    )
