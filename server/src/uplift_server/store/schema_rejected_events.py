"""The table of rejected events. It does not contain the events' data."""

import sqlalchemy as sa

from uplift_server.store.schema import Seq, Uuid, metadata

rejected_events = sa.Table(
    "rejected_events",
    metadata,
    sa.Column("seq", Seq, primary_key=True),
    sa.Column("id", Uuid, nullable=False, unique=True, comment="from stream_seq and published_at"),
    sa.Column("account_seq", sa.BigInteger, comment="NULL if the account is unknown"),
    sa.Column("subject", sa.Text, nullable=False, comment="subject of the message"),
    sa.Column("event_type", sa.Text, comment="as given, at most 128 characters; also event_id and idempotency_key"),
    sa.Column("event_id", sa.Text),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("problem", sa.Text, nullable=False, comment="JSON object, RFC 9457"),
    sa.Column("size_bytes", sa.BigInteger, nullable=False, comment="size of the message"),
    sa.Column("stream_seq", sa.BigInteger, nullable=False, comment="number of the message in the stream"),
    sa.Column("published_at", sa.BigInteger, nullable=False),
    sa.Column("rejected_at", sa.BigInteger, nullable=False),
)
sa.Index("rejected_events_by_account", rejected_events.c.account_seq, rejected_events.c.seq)
sa.Index("rejected_events_by_age", rejected_events.c.rejected_at)
