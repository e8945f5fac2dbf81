"""Add two columns to accounts and endpoints: an ID that the operator assigns (`uid`), and metadata."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0021"
down_revision: str | Sequence[str] | None = "0020"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_LIVE = sa.text("uid IS NOT NULL AND deleted_at IS NULL")


def upgrade() -> None:
    """Add the columns for the uid and the metadata, with a unique index on the uid. Both are empty in existing rows."""
    for table, comment in (
        ("accounts", "the operator's own ID"),
        ("endpoints", "the operator's own ID, unique in the account"),
    ):
        op.add_column(table, sa.Column("uid", sa.Text(), comment=comment))
        op.add_column(table, sa.Column("metadata", sa.Text(), comment="JSON object of strings; NULL if empty"))
    for name, table, columns in (
        ("accounts_by_uid", "accounts", ["uid"]),
        ("endpoints_by_uid", "endpoints", ["account_seq", "uid"]),
    ):
        op.create_index(name, table, columns, unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE)
