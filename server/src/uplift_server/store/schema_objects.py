"""The table that indexes events by object ID."""

import sqlalchemy as sa

from uplift_server.store.schema import metadata

event_objects = sa.Table(
    "event_objects",
    metadata,
    sa.Column("first_seq", sa.BigInteger, primary_key=True, autoincrement=False, comment="first number of the bucket"),
    sa.Column("object_key", sa.BigInteger, primary_key=True, comment="CRC-32 of the object ID, and account"),
    sa.Column("event_seq", sa.BigInteger, primary_key=True),
    sqlite_with_rowid=False,
    comment="events by object ID",
)
