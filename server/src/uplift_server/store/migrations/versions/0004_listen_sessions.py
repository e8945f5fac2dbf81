"""Add listen sessions and the responses of local servers."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | Sequence[str] | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_Seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables for listen sessions and responses."""
    op.create_table(
        "listen_sessions",
        sa.Column("seq", _Seq, primary_key=True),
        sa.Column("id", sa.LargeBinary(16), nullable=False, unique=True),
        sa.Column("account_seq", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.LargeBinary(16), nullable=False, comment="API key that created the session"),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("event_types", sa.Text, nullable=False, comment="JSON list of names and patterns; empty for all"),
        sa.Column("position", sa.BigInteger, nullable=False, comment="number of the last event that was streamed"),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("last_seen_at", sa.BigInteger, nullable=False, comment="time of the last connection"),
    )
    op.create_index("listen_sessions_by_account", "listen_sessions", ["account_seq", "seq"])
    op.create_table(
        "listen_answers",
        sa.Column("seq", _Seq, primary_key=True),
        sa.Column("session_seq", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.LargeBinary(16), nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("status_code", sa.SmallInteger),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("body", sa.Text, nullable=False, comment="beginning of the response of the local server"),
        sa.Column("redelivered", sa.Boolean, nullable=False),
    )
    op.create_index("listen_answers_by_session", "listen_answers", ["session_seq", "seq"])
