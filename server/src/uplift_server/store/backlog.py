"""Counts of due, scheduled, held and blocked deliveries across all accounts. Each count stops at a limit."""

from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import status_sql

_WAITING: Final = status_sql.waiting("d")
_HELD: Final = status_sql.held("d")
# A loose index scan: it jumps from the first entry of one endpoint to the first entry of the next.
_COUNT: Final = """
WITH RECURSIVE found(endpoint_seq) AS (
    SELECT (SELECT min(d.endpoint_seq) FROM {table} WHERE {part})
    UNION ALL
    SELECT (SELECT min(d.endpoint_seq) FROM {table} WHERE {part} AND d.endpoint_seq > found.endpoint_seq)
    FROM found WHERE found.endpoint_seq IS NOT NULL
)
SELECT count(*) FROM (
    SELECT 1 FROM found CROSS JOIN {table} WHERE d.endpoint_seq = found.endpoint_seq AND {part}{more} LIMIT :limit
) counted
"""


_LEASED: Final = f"""
SELECT endpoint_seq, count(*) AS n
FROM (SELECT d.endpoint_seq FROM {{table}} WHERE {status_sql.leased("d")} LIMIT :limit) counted GROUP BY endpoint_seq
"""  # noqa: S608 - contains only constants


class Backlog(NamedTuple):
    """Counts of deliveries that are not leased. Each count stops at a limit."""

    due: int
    later: int
    """The number of deliveries that are scheduled for later."""
    held: int
    blocked: int
    """The number of deliveries that wait for another delivery in their order group."""


def leased(connection: Connection, *, limit: int) -> dict[int, int]:
    """Count each endpoint's leased deliveries, up to `limit` in total."""
    # Name the index: without table statistics, SQLite would scan all deliveries.
    named = "deliveries d INDEXED BY deliveries_leased" if connection.dialect.name == "sqlite" else "deliveries d"
    query = sa.text(_LEASED.format(table=named))
    return {row.endpoint_seq: row.n for row in connection.execute(query, {"limit": limit})}


def count(connection: Connection, *, now: int, limit: int) -> Backlog:
    """Count the deliveries that are not leased, as of `now` (Unix ms). Each count stops at `limit`."""

    def count_rows(index: str, part: str, more: str = "") -> int:
        # Name the index: without table statistics, SQLite would scan all deliveries of the endpoints.
        named = f"deliveries d INDEXED BY {index}" if connection.dialect.name == "sqlite" else "deliveries d"
        query = sa.text(_COUNT.format(table=named, part=part, more=more))
        values = {"limit": limit} | ({"now": now} if ":now" in more else {})
        return int(connection.scalars(query, values).one())

    return Backlog(
        count_rows("deliveries_due", _WAITING, " AND d.due_at <= :now"),
        count_rows("deliveries_due", _WAITING, " AND d.due_at > :now"),
        count_rows("deliveries_held", _HELD),
        count_rows("deliveries_due", _WAITING, " AND d.due_at IS NULL"),
    )
