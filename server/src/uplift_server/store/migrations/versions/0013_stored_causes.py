"""Add the failure cause and the circuit breaker state to endpoint health."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | Sequence[str] | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add columns for the last failure and for the circuit breaker to endpoints."""
    for column in (
        sa.Column("last_status_code", sa.SmallInteger()),
        sa.Column("last_error", sa.Text(), comment="NULL after a success"),
        sa.Column("last_location", sa.Text(), comment="redirect target without secrets"),
        sa.Column("probe_at", sa.BigInteger(), comment="of a failing endpoint with an open circuit breaker"),
    ):
        op.add_column("endpoints", column)
