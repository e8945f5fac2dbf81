"""Search for events by object ID.

The index groups events into buckets of consecutive event numbers. All new rows belong to the newest bucket, so an
insert changes only a few pages. A search reads one bucket after another, newest or oldest first. A row's key combines a
checksum of the object ID with the account number. Different objects can have the same key, so a search returns
candidates. Compare the object ID and the account of each candidate.
"""

from collections.abc import Collection, Sequence
from typing import Final
from zlib import crc32

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.schema import events
from uplift_server.store.schema_objects import event_objects

SQLITE_BUCKET: Final = 256
POSTGRES_BUCKET: Final = 65_536
"""Number of consecutive event numbers in a bucket on PostgreSQL. SQLITE_BUCKET is the number on SQLite.

Buckets on SQLite are small, because each commit writes whole pages of the bucket. PostgreSQL writes only the rows. With
a bucket of 2,048 event numbers on SQLite, each event took 15% more CPU time.
"""
ACCOUNT_KEYS: Final = 2**24
"""Number of index keys for each checksum of an object ID.

The account number modulo ACCOUNT_KEYS selects one of them.
"""
CANDIDATES_MAX: Final = 1000
"""Maximum number of candidates that one search returns. If few of them match, a page is shorter than requested."""

# Count the rows in each bucket, and stop after the bucket that reaches the limit.
_SEARCH: Final = """\
WITH RECURSIVE buckets(first_seq, found) AS (
    SELECT {outermost}(first_seq), CAST(0 AS bigint) FROM event_objects WHERE first_seq BETWEEN :lowest_bucket AND :high
    UNION ALL
    SELECT
        (SELECT {outermost}(o.first_seq) FROM event_objects o
         WHERE o.first_seq {beyond} buckets.first_seq AND o.first_seq BETWEEN :lowest_bucket AND :high),
        buckets.found + (SELECT count(*) FROM event_objects o
         WHERE o.first_seq = buckets.first_seq AND {matches} AND o.event_seq BETWEEN :low AND :high)
    FROM buckets WHERE buckets.first_seq IS NOT NULL AND buckets.found < :limit
)
SELECT o.event_seq FROM buckets CROSS JOIN event_objects o
WHERE o.first_seq = buckets.first_seq AND {matches} AND o.event_seq BETWEEN :low AND :high
ORDER BY o.event_seq {order}
LIMIT :limit
"""
_OF_ACCOUNT: Final = "o.object_key = :object_key"
_OF_ALL: Final = f"o.object_key BETWEEN :object_key AND :object_key + {ACCOUNT_KEYS - 1}"
_NEWEST_FIRST, _OLDEST_FIRST = (
    {
        across: sa.text(_SEARCH.format(outermost=outermost, beyond=beyond, order=order, matches=matches))
        for across, matches in ((False, _OF_ACCOUNT), (True, _OF_ALL))
    }
    for outermost, beyond, order in (("max", "<", "DESC"), ("min", ">", "ASC"))
)
"""The search statements for each order. The keys are True (search all accounts) and False (search one account)."""


def object_key(account_seq: int, object_id: str) -> int:
    """Return the index key of an object ID in an account."""
    return crc32(object_id.encode()) * ACCOUNT_KEYS + account_seq % ACCOUNT_KEYS


def candidates(
    connection: Connection,
    account_seq: int | None,
    object_id: str,
    low: int,
    high: int,
    *,
    newest_first: bool = True,
) -> list[int]:
    """Return the numbers of up to CANDIDATES_MAX events that may have the object ID, newest or oldest first.

    Search from event number `low` to `high` (inclusive), in all accounts if `account_seq` is None.
    """
    values = {
        "object_key": object_key(account_seq or 0, object_id),
        "lowest_bucket": low - _bucket(connection),
        "low": low,
        "high": high,
        "limit": CANDIDATES_MAX,
    }
    searches = _NEWEST_FIRST if newest_first else _OLDEST_FIRST
    return list(connection.scalars(searches[account_seq is None], values))


def matching(object_id: str, found: Sequence[int]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that select the events with this object ID from the candidates `found`."""
    return [events.c.seq.in_(found), events.c.object_id == object_id]


def delete(connection: Connection, event_seqs: Collection[int]) -> None:
    """Remove events from the index.

    Call this function before you erase or delete the events, because the function reads their object IDs.
    """
    columns = (events.c.seq, events.c.account_seq, events.c.object_id)
    found = connection.execute(sa.select(*columns).where(events.c.seq.in_(event_seqs), events.c.object_id.is_not(None)))
    bucket = _bucket(connection)
    rows = [
        {"bucket": row.seq - row.seq % bucket, "key": object_key(row.account_seq, row.object_id), "number": row.seq}
        for row in found
    ]
    if rows:
        own = [
            column == sa.bindparam(name)
            for column, name in zip(event_objects.primary_key, ("bucket", "key", "number"), strict=True)
        ]
        connection.execute(sa.delete(event_objects).where(*own), rows)


def _bucket(connection: Connection) -> int:
    return SQLITE_BUCKET if connection.dialect.name == "sqlite" else POSTGRES_BUCKET
