"""Add filters to endpoints."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0025"
down_revision: str | Sequence[str] | None = "0024"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add a column for the filter. Existing endpoints get no filter."""
    op.add_column("endpoints", sa.Column("filter", sa.Text(), comment="JSON object; NULL to match all events"))
