"""Add a table of notifications between processes, because connection poolers do not forward PostgreSQL notifications."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | Sequence[str] | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_Seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table of notifications."""
    op.create_table(
        "told_texts",
        sa.Column("seq", _Seq, primary_key=True),
        sa.Column("text", sa.Text(), nullable=False),
        comment="notifications of earlier releases through a pooler",
    )
