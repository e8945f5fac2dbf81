"""Add the filters of bulk resends to replays."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0018"
down_revision: str | Sequence[str] | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add columns for the filters and for the ID of the bulk resend. Both are empty for existing replays."""
    for name, comment in (
        ("outcomes", "JSON list of numbers; NULL for all"),
        ("status_codes", "JSON list of ranges; NULL for all"),
        ("object_id", "NULL for all"),
    ):
        op.add_column("replays", sa.Column(name, sa.Text(), comment=comment))
    op.add_column("replays", sa.Column("batch_id", sa.LargeBinary(16), comment="bulk resend that created the replay"))
