"""Partition events and attempts by time on PostgreSQL."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | Sequence[str] | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
# Earlier releases do not use the table of chosen IDs, so they could store two events with one ID.
# They would also wait while this migration attaches partitions, because PostgreSQL then reads both tables once.
needs_release = "0.1.1"

_PARTITION: Final = (
    "ALTER TABLE events RENAME TO events_0_1",
    "ALTER INDEX events_pkey RENAME TO events_0_1_pkey",
    "ALTER INDEX events_by_id RENAME TO events_0_1_by_id",
    "ALTER INDEX events_by_account RENAME TO events_0_1_by_account",
    "ALTER INDEX events_by_type RENAME TO events_0_1_by_type",
    "CREATE TABLE events (LIKE events_0_1 INCLUDING DEFAULTS INCLUDING COMMENTS) PARTITION BY RANGE (seq)",
    "ALTER TABLE events ADD PRIMARY KEY (seq)",
    "CREATE INDEX events_by_account ON events (account_seq, seq)",
    "CREATE INDEX events_by_type ON events (account_seq, type_seq, seq)",
    "ALTER SEQUENCE events_seq_seq OWNED BY events.seq",
    "ALTER TABLE events ATTACH PARTITION events_0_1 FOR VALUES FROM (0) TO (1000000000000)",
    "ALTER TABLE attempts RENAME TO attempts_0_1",
    "ALTER INDEX attempts_pkey RENAME TO attempts_0_1_pkey",
    "ALTER INDEX attempts_by_delivery RENAME TO attempts_0_1_by_delivery",
    "CREATE TABLE attempts (LIKE attempts_0_1 INCLUDING DEFAULTS INCLUDING COMMENTS) PARTITION BY RANGE (event_seq)",
    "CREATE UNIQUE INDEX attempts_by_delivery ON attempts (event_seq, endpoint_seq, number)",
    "ALTER SEQUENCE attempts_seq_seq OWNED BY attempts.seq",
    "ALTER TABLE attempts ATTACH PARTITION attempts_0_1 FOR VALUES FROM (0) TO (1000000000000)",
    (
        "INSERT INTO event_partitions (first_seq, end_seq, begun_at, goes_by_row)"
        " SELECT 0, 1000000000000, coalesce((SELECT created_at FROM events ORDER BY seq LIMIT 1),"
        " (extract(epoch FROM clock_timestamp()) * 1000)::bigint), false"
    ),
)


def upgrade() -> None:
    """Add two tables. On PostgreSQL, replace the tables of events and attempts with partitioned tables."""
    op.create_table(
        "event_partitions",
        sa.Column("first_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("end_seq", sa.BigInteger(), nullable=False, comment="first number after the partition"),
        sa.Column("begun_at", sa.BigInteger(), comment="NULL before its first use"),
        sa.Column("ended_at", sa.BigInteger(), comment="NULL while the partition gets events"),
        sa.Column(
            "goes_by_row", sa.Boolean(), nullable=False, comment="whether retention deletes its events row by row"
        ),
        sa.PrimaryKeyConstraint("first_seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "chosen_event_ids",
        sa.Column("account_seq", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.LargeBinary(16), nullable=False),
        sa.Column("event_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_seq", "id"),
        sqlite_with_rowid=False,
        comment="event IDs that callers chose, on PostgreSQL",
    )
    op.create_index("chosen_event_ids_by_event", "chosen_event_ids", ["event_seq"])
    if op.get_bind().dialect.name == "postgresql":
        for statement in _PARTITION:
            op.execute(statement)
