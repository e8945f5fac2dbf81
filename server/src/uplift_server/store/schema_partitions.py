"""The time partitions of events and attempts on PostgreSQL.

A partition contains the events in a range of event numbers, and their attempts. When a new partition
starts, the sequence of event numbers continues at the start of that partition's range (`store.postgres.partitions`).
SQLite has no partitions.
"""

from typing import Final

import sqlalchemy as sa

from uplift_server.store.schema import Uuid, metadata

NUMBERS: Final = 10**12
"""The size of a partition's range of event numbers. It is enough for a million events per second over 11 days."""

event_partitions = sa.Table(
    "event_partitions",
    metadata,
    sa.Column("first_seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("end_seq", sa.BigInteger, nullable=False, comment="first number after the partition"),
    sa.Column("begun_at", sa.BigInteger, comment="NULL before its first use"),
    sa.Column("ended_at", sa.BigInteger, comment="NULL while the partition gets events"),
    sa.Column("goes_by_row", sa.Boolean, nullable=False, comment="whether retention deletes its events row by row"),
    sqlite_with_rowid=False,
)

# A unique index of a partitioned table is unique only within each partition, so chosen IDs have a separate table.
# The first partition has a unique index for events stored before partitioning.
chosen_event_ids = sa.Table(
    "chosen_event_ids",
    metadata,
    sa.Column("account_seq", sa.BigInteger, primary_key=True),
    sa.Column("id", Uuid, primary_key=True),
    sa.Column("event_seq", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
    comment="event IDs that callers chose, on PostgreSQL",
)
sa.Index("chosen_event_ids_by_event", chosen_event_ids.c.event_seq)


def table_name(table: str, first_seq: int, end_seq: int) -> str:
    """Return the table name for the partition of `events` or `attempts` that has this range of event numbers."""
    return f"{table}_{first_seq // NUMBERS}_{end_seq // NUMBERS}"


# The schema creates both tables without partitions. Each table then becomes the first partition of a new table.
# The indexes of each partition have their own names.
PARTITION: Final = (
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
    f"ALTER TABLE events ATTACH PARTITION events_0_1 FOR VALUES FROM (0) TO ({NUMBERS})",
    "ALTER TABLE attempts RENAME TO attempts_0_1",
    "ALTER INDEX attempts_pkey RENAME TO attempts_0_1_pkey",
    "ALTER INDEX attempts_by_delivery RENAME TO attempts_0_1_by_delivery",
    "CREATE TABLE attempts (LIKE attempts_0_1 INCLUDING DEFAULTS INCLUDING COMMENTS) PARTITION BY RANGE (event_seq)",
    "CREATE UNIQUE INDEX attempts_by_delivery ON attempts (event_seq, endpoint_seq, number)",
    "ALTER SEQUENCE attempts_seq_seq OWNED BY attempts.seq",
    f"ALTER TABLE attempts ATTACH PARTITION attempts_0_1 FOR VALUES FROM (0) TO ({NUMBERS})",
    (
        "INSERT INTO event_partitions (first_seq, end_seq, begun_at, goes_by_row)"  # noqa: S608 - contains only constants
        f" SELECT 0, {NUMBERS}, coalesce((SELECT created_at FROM events ORDER BY seq LIMIT 1),"
        " (extract(epoch FROM clock_timestamp()) * 1000)::bigint), false"
    ),
)


@sa.event.listens_for(metadata, "after_create")
def _create_partitions(_metadata: sa.MetaData, connection: sa.Connection, **_options: object) -> None:
    if connection.dialect.name == "postgresql":
        for statement in PARTITION:
            connection.exec_driver_sql(statement)
