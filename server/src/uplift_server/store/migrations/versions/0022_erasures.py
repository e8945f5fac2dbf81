"""Add event erasures."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0022"
down_revision: str | Sequence[str] | None = "0021"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_Seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the erasure time to events, and create the erasures table."""
    op.add_column(
        "events", sa.Column("erased_at", sa.BigInteger(), comment="of an erased event, whose body has no data")
    )
    op.create_table(
        "erasures",
        sa.Column("seq", _Seq, primary_key=True),
        sa.Column("id", sa.LargeBinary(16), nullable=False),
        sa.Column("account_seq", sa.BigInteger(), nullable=False),
        sa.Column("object_id", sa.Text(), comment="object ID to erase; NULL after its last trace is erased"),
        sa.Column("object_digest", sa.Text(), comment="keyed digest of the object ID; NULL for event IDs"),
        sa.Column("event_seqs", sa.Text(), comment="JSON list of the events to erase; NULL for an object ID"),
        sa.Column("missing", sa.Integer(), nullable=False, comment="requested IDs that belong to no event of the account"),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="last event that the index search checked"),
        sa.Column(
            "scanned_through", sa.BigInteger(), nullable=False, comment="last event without object ID that was read"
        ),
        sa.Column("last_event_seq", sa.BigInteger(), nullable=False, comment="last event of the erasure"),
        sa.Column("events", sa.BigInteger(), nullable=False, server_default="0", comment="number of erased events"),
        sa.Column("oldest_at", sa.BigInteger(), comment="timestamp of the oldest erased event"),
        sa.Column("leases_until", sa.BigInteger(), comment="end of the last lease of an erased delivery"),
        sa.Column("tidied_at", sa.BigInteger(), comment="when the rows about erased events were erased"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("completed_at", sa.BigInteger()),
        sa.UniqueConstraint("id"),
    )
    op.create_index("erasures_by_account", "erasures", ["account_seq", "seq"])
    for name, column, condition in (
        ("erasures_unfinished", "seq", sa.text("completed_at IS NULL")),
        ("erasures_completed", "completed_at", sa.text("completed_at IS NOT NULL")),
    ):
        op.create_index(name, "erasures", [column], sqlite_where=condition, postgresql_where=condition)
