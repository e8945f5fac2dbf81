"""Add service keys, and an expiry for API keys."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0020"
down_revision: str | Sequence[str] | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
# The triggers record changes to the new table in the change log. Servers that run 0.1.2 ignore these changes.
needs_release = "0.1.2"

_EXPIRY = "NULL if the key does not expire"
_REVOKED = sa.text("revoked_at IS NOT NULL")


def upgrade() -> None:
    """Create the service keys table, and add an expiry to API keys. Existing keys do not expire."""
    seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "service_keys",
        sa.Column("seq", seq, nullable=False),
        sa.Column("id", sa.LargeBinary(16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False, comment="SHA-256 of the key"),
        sa.Column("ends_with", sa.Text(), nullable=False, comment="last characters of the key, for recognition"),
        sa.Column("scopes", sa.Text(), nullable=False, comment="separated by spaces"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), comment=_EXPIRY),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
        sa.UniqueConstraint("digest"),
        comment="keys of operators' programs, for all accounts within their scopes",
    )
    op.create_index(
        "service_keys_revoked", "service_keys", ["revoked_at"], sqlite_where=_REVOKED, postgresql_where=_REVOKED
    )
    op.add_column("api_keys", sa.Column("expires_at", sa.BigInteger(), comment=_EXPIRY))
    if op.get_bind().dialect.name == "postgresql":
        _add_triggers()


def _add_triggers() -> None:
    """Create the triggers that record changes to keys in the change log. Every process then updates its cache."""
    function = "EXECUTE FUNCTION note_directory_change()"
    op.execute(
        f"CREATE TRIGGER service_keys_note_creation AFTER INSERT ON service_keys FOR EACH ROW {function}"
    )
    op.execute(
        "CREATE TRIGGER service_keys_note_change AFTER UPDATE ON service_keys FOR EACH ROW"
        f" WHEN (OLD IS DISTINCT FROM NEW) {function}"
    )
