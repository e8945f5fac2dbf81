"""Add second factors: people's authenticator apps and recovery codes."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0030"
down_revision: str | Sequence[str] | None = "0029"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Create the tables for second factors and recovery codes."""
    seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "second_factors",
        sa.Column("seq", seq, nullable=False),
        sa.Column("person_id", sa.LargeBinary(16), nullable=False),
        sa.Column("totp_secret", sa.LargeBinary(), nullable=False, comment="encrypted key of the authenticator app"),
        sa.Column(
            "last_step", sa.BigInteger(), nullable=False, comment="step of the last used code: no code works twice"
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("person_id"),
        comment="second factors for sign-in with a password",
    )
    op.create_table(
        "recovery_codes",
        sa.Column("digest", sa.LargeBinary(32), nullable=False, comment="SHA-256 of the person's ID and the code"),
        sa.Column("person_id", sa.LargeBinary(16), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
        comment="unused codes that replace a code from the authenticator app",
        sqlite_with_rowid=False,
    )
    op.create_index("recovery_codes_by_person", "recovery_codes", ["person_id"])
