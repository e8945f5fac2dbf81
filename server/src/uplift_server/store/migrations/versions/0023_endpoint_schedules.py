"""Add a retry schedule and an attempt timeout to endpoints."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0023"
down_revision: str | Sequence[str] | None = "0022"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add columns for the retry schedule and the attempt timeout.

    Existing endpoints continue to use the server's settings.
    """
    op.add_column("endpoints", sa.Column("retry_schedule_ms", sa.Text(), comment="JSON list of delays"))
    op.add_column("endpoints", sa.Column("attempt_timeout_ms", sa.Integer()))
