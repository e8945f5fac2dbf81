"""Erase the secrets of deleted endpoints, and add the indexes that retention uses to find deleted objects."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | Sequence[str] | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BY_END: Final = (
    ("accounts_deleted", "accounts", "deleted_at"),
    ("api_keys_revoked", "api_keys", "revoked_at"),
    ("event_types_deleted", "event_types", "deleted_at"),
    ("endpoints_deleted", "endpoints", "deleted_at"),
    ("replays_completed", "replays", "completed_at"),
)


def upgrade() -> None:
    """Add indexes. Erase the secrets of endpoints that earlier releases deleted."""
    # SQLite would store `''` as text, and PostgreSQL rejects `x''`.
    nothing = "x''" if op.get_bind().dialect.name == "sqlite" else "''"
    op.execute(
        f"UPDATE endpoints SET secret = {nothing}, previous_secret = NULL, headers = NULL WHERE deleted_at IS NOT NULL"  # noqa: S608
    )
    for index, table, column in _BY_END:
        condition = sa.text(f"{column} IS NOT NULL")
        op.create_index(index, table, [column], sqlite_where=condition, postgresql_where=condition)
    op.create_index("replays_by_endpoint", "replays", ["endpoint_seq"])
    # The number of unsent emails is not limited, so the index excludes them.
    op.drop_index("notices_by_age", "notices")
    done = sa.text("due_at IS NULL")
    op.create_index("notices_done", "notices", ["created_at"], sqlite_where=done, postgresql_where=done)
