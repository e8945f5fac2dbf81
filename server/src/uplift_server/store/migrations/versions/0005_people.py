"""Add people, members, sessions, invitations and one-time links."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | Sequence[str] | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_Seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables for people, members, sessions, invitations and links."""
    op.create_table(
        "people",
        sa.Column("seq", _Seq, primary_key=True),
        sa.Column("id", sa.LargeBinary(16), nullable=False, unique=True),
        sa.Column("email", sa.Text, unique=True, comment="in lower case; NULL for guests of portal links"),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("password_hash", sa.Text, comment="argon2id; NULL for sign-in with portal links only"),
        sa.Column(
            "proved", sa.Boolean, nullable=False, comment="whether the email is verified"
        ),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "members",
        sa.Column("seq", _Seq, primary_key=True),
        sa.Column("id", sa.LargeBinary(16), nullable=False, unique=True),
        sa.Column("account_seq", sa.BigInteger, nullable=False),
        sa.Column("person_seq", sa.BigInteger, nullable=False),
        sa.Column("role", sa.SmallInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("members_by_account", "members", ["account_seq", "seq"])
    op.create_index("members_by_person", "members", ["person_seq", "account_seq"], unique=True)
    op.create_table(
        "sessions",
        sa.Column("digest", sa.LargeBinary(32), primary_key=True, comment="SHA-256 of the cookie"),
        sa.Column("person_seq", sa.BigInteger, comment="NULL for operators"),
        sa.Column("account_seq", sa.BigInteger, comment="for portal links: the only account that it shows"),
        sa.Column("key_digest", sa.LargeBinary(32), comment="for operators: digest of the key whose revocation ends it"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False, comment="last use, rounded to the hour"),
        sa.Column("confirmed_at", sa.BigInteger, comment="time of the last password entry"),
        sa.Column("ends_at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("sessions_by_person", "sessions", ["person_seq", "created_at"])
    op.create_index("sessions_by_end", "sessions", ["ends_at"])
    op.create_table(
        "links",
        sa.Column("id", sa.LargeBinary(16), primary_key=True),
        sa.Column("account_seq", sa.BigInteger, comment="NULL for operators"),
        sa.Column("email", sa.Text, comment="email of the person; NULL for a guest"),
        sa.Column("role", sa.SmallInteger, nullable=False, comment="role of a new member"),
        sa.Column("key_digest", sa.LargeBinary(32), comment="for operators: digest of the key that created the link"),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
        comment="unused one-time links",
    )
    op.create_index("links_by_end", "links", ["expires_at"])
    op.create_table(
        "invitations",
        sa.Column("seq", _Seq, primary_key=True),
        sa.Column("id", sa.LargeBinary(16), nullable=False, unique=True),
        sa.Column("account_seq", sa.BigInteger, nullable=False),
        sa.Column("email", sa.Text, nullable=False, comment="in lower case"),
        sa.Column("role", sa.SmallInteger, nullable=False),
        sa.Column("invited_by", sa.Text, nullable=False, comment="name to show to the invited person"),
        sa.Column("proves", sa.Boolean, nullable=False, comment="whether the link verifies the email"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("invitations_by_account", "invitations", ["account_seq", "seq"])
    op.create_index("invitations_by_end", "invitations", ["expires_at"])
