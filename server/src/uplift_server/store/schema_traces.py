"""The table of trace contexts."""

import sqlalchemy as sa

from uplift_server.store.schema import metadata

trace_parents = sa.Table(
    "trace_parents",
    metadata,
    sa.Column("event_seq", sa.BigInteger, primary_key=True),
    sa.Column("traceparent", sa.Text, nullable=False, comment="trace context as received from the sender"),
    sqlite_with_rowid=False,
)
