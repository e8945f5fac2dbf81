"""Add a table of commands that one process stores and another process executes."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | Sequence[str] | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_Seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table of commands."""
    op.create_table(
        "commands",
        sa.Column("seq", _Seq, primary_key=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account_seq", sa.BigInteger(), nullable=False),
        sa.Column("endpoint_seq", sa.BigInteger(), nullable=False),
        sa.Column("event_seq", sa.BigInteger(), nullable=False, comment="0 for a test, whose event is not stored yet"),
        sa.Column("arguments", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), comment="NULL if kept until a process executes or rejects it"),
        sa.Column("result", sa.Text(), comment="JSON; NULL until a process executes or rejects it"),
        comment="commands to cancel, resend or test deliveries of other processes",
    )
