"""Mark the encrypted values as not bound to their column. The server re-encrypts them later."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | Sequence[str] | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Mark the values as not bound.

    Only the server has the key, so `store.encryption_upgrade` re-encrypts the values.
    """
    marks = sa.table("marks", sa.column("name", sa.Text), sa.column("value", sa.BigInteger))
    op.bulk_insert(marks, [{"name": "encryption.unbound", "value": 1}])
