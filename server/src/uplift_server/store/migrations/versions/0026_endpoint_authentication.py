"""Add endpoint authentication: OAuth 2.0 client credentials or a client certificate."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0026"
down_revision: str | Sequence[str] | None = "0025"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Add columns for the authentication. Existing endpoints get no authentication."""
    for name, kind, comment in (
        ("auth", sa.LargeBinary(), "encrypted JSON object; NULL without authentication"),
        ("certificate_expires_at", sa.BigInteger(), "of the client certificate in `auth`"),
        ("certificate_warned_at", sa.BigInteger(), "time of the last warning about its expiry"),
    ):
        op.add_column("endpoints", sa.Column(name, kind, comment=comment))
