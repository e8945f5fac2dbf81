"""Add object IDs to events, and an index of the object IDs."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | Sequence[str] | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add a column for object IDs, and create their index table. Existing events get no object ID."""
    op.add_column("events", sa.Column("object_id", sa.Text(), comment="string or integer at `data.object.id`"))
    op.create_table(
        "event_objects",
        sa.Column("first_seq", sa.BigInteger(), nullable=False, comment="first number of the bucket"),
        sa.Column("object_key", sa.BigInteger(), nullable=False, comment="CRC-32 of the object ID, and account"),
        sa.Column("event_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("first_seq", "object_key", "event_seq"),
        sqlite_with_rowid=False,
        comment="events by object ID",
    )
