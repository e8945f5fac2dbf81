"""Add event types to replays, so that replays can also send events that have no delivery to the endpoint."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0019"
down_revision: str | Sequence[str] | None = "0018"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add a column for event types. Existing replays send no missing events."""
    column = sa.Column("missing_type_seqs", sa.Text(), comment="JSON list of the types of missing events; NULL for none")
    op.add_column("replays", column)
