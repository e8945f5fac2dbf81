"""Add the times of the last test and the last signature check to endpoints."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0017"
down_revision: str | Sequence[str] | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add the columns `tested_at` and `verified_at` to endpoints."""
    op.add_column("endpoints", sa.Column("tested_at", sa.BigInteger(), comment="time of the last test event to this URL"))
    op.add_column(
        "endpoints", sa.Column("verified_at", sa.BigInteger(), comment="when this URL passed the signature check")
    )
