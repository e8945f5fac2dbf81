"""The table of erasures: jobs that erase events. A completed job remains as a receipt."""

import sqlalchemy as sa

from uplift_server.store.schema import Seq, Uuid, metadata

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False, unique=True),
    sa.Column("account_seq", sa.BigInteger, nullable=False),
    sa.Column("object_id", sa.Text, comment="object ID to erase; NULL after its last trace is erased"),
    sa.Column("object_digest", sa.Text, comment="keyed digest of the object ID; NULL for event IDs"),
    sa.Column("event_seqs", sa.Text, comment="JSON list of the events to erase; NULL for an object ID"),
    sa.Column("missing", sa.Integer, nullable=False, comment="requested IDs that belong to no event of the account"),
    sa.Column("position", sa.BigInteger, nullable=False, comment="last event that the index search checked"),
    sa.Column("scanned_through", sa.BigInteger, nullable=False, comment="last event without object ID that was read"),
    sa.Column("last_event_seq", sa.BigInteger, nullable=False, comment="last event of the erasure"),
    sa.Column("events", sa.BigInteger, nullable=False, server_default="0", comment="number of erased events"),
    sa.Column("oldest_at", sa.BigInteger, comment="timestamp of the oldest erased event"),
    sa.Column("leases_until", sa.BigInteger, comment="end of the last lease of an erased delivery"),
    sa.Column("tidied_at", sa.BigInteger, comment="when the rows about erased events were erased"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("completed_at", sa.BigInteger),
)
sa.Index("erasures_by_account", erasures.c.account_seq, erasures.c.seq)
_UNFINISHED = "completed_at IS NULL"
_COMPLETED = "completed_at IS NOT NULL"
sa.Index(
    "erasures_unfinished", erasures.c.seq, sqlite_where=sa.text(_UNFINISHED), postgresql_where=sa.text(_UNFINISHED)
)
sa.Index(
    "erasures_completed",
    erasures.c.completed_at,
    sqlite_where=sa.text(_COMPLETED),
    postgresql_where=sa.text(_COMPLETED),
)
