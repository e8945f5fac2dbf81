"""Add single sign-on: the identities of people, and the columns that their sessions need."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0029"
down_revision: str | Sequence[str] | None = "0028"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Create the table of identities, add columns to sessions, and index invitations by email."""
    seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "identities",
        sa.Column("seq", seq, nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False, comment="the identity provider"),
        sa.Column("subject", sa.Text(), nullable=False, comment="ID of the person at the identity provider"),
        sa.Column("person_id", sa.LargeBinary(16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        comment="people who have signed in with single sign-on",
    )
    op.create_index("identities_by_subject", "identities", ["issuer", "subject"], unique=True)
    op.create_index("identities_by_person", "identities", ["person_id", "issuer"], unique=True)
    for name, kind, comment in (
        ("subject", sa.Text(), "after single sign-on: ID of the person at the identity provider"),
        ("operator_name", sa.Text(), "for operators after single sign-on"),
        ("id_token", sa.LargeBinary(), "for sign-out at the provider; encrypted with the cookie"),
    ):
        op.add_column("sessions", sa.Column(name, kind, comment=comment))
    op.create_index("invitations_by_email", "invitations", ["email", "account_seq"])
