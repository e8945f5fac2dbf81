"""How much waits in the database, for everybody together and up to a limit: what an operator looks at."""

from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import status_sql

_WAITING: Final = status_sql.waiting("d")
_HELD: Final = status_sql.held("d")
# From one endpoint's first entry straight to the next one's, and of each only what is counted: however much else waits.
_COUNT: Final = """
WITH RECURSIVE owed(endpoint_seq) AS (
    SELECT (SELECT min(d.endpoint_seq) FROM {table} WHERE {part})
    UNION ALL
    SELECT (SELECT min(d.endpoint_seq) FROM {table} WHERE {part} AND d.endpoint_seq > owed.endpoint_seq)
    FROM owed WHERE owed.endpoint_seq IS NOT NULL
)
SELECT count(*) FROM (
    SELECT 1 FROM owed CROSS JOIN {table} WHERE d.endpoint_seq = owed.endpoint_seq AND {part}{wanted} LIMIT :limit
) counted
"""


class Backlog(NamedTuple):
    """How many deliveries wait, each counted up to a limit; those leased into memory are not among them."""

    due: int
    """Their instant has come."""
    later: int
    """It is to come."""
    held: int


def count(connection: Connection, *, now: int, limit: int) -> Backlog:
    """Count what waits at an instant (Unix ms)."""

    def counted(index: str, part: str, wanted: str = "") -> int:
        # Without statistics SQLite would rather go through the endpoints' whole history.
        named = f"deliveries d INDEXED BY {index}" if connection.dialect.name == "sqlite" else "deliveries d"
        query = sa.text(_COUNT.format(table=named, part=part, wanted=wanted))
        values = {"limit": limit} | ({"now": now} if wanted else {})
        return int(connection.scalars(query, values).one())

    return Backlog(
        counted("deliveries_due", _WAITING, " AND d.due_at <= :now"),
        counted("deliveries_due", _WAITING, " AND d.due_at > :now"),
        counted("deliveries_held", _HELD),
    )
