"""Add read-only sessions and read-only links for operators."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | Sequence[str] | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add a column for the keys of read-only operators.

    Earlier releases reject the sessions of these operators, because `key_digest` is empty.
    """
    for table in ("sessions", "links"):
        op.add_column(
            table,
            sa.Column("reader_key_digest", sa.LargeBinary(32), comment="for read-only operators, instead of key_digest"),
        )
