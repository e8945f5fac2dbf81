"""Delivery order groups on SQLite."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from uplift_server.store.hot_records import OrderGroup
from uplift_server.store.status_sql import blocked, ordered

_OPEN_GROUPS: Final = f"""\
SELECT json_group_array(json(wanted.value))
FROM json_each(:groups) wanted       -- JSON list of endpoint_seq and order_group
WHERE EXISTS (
    SELECT 1 FROM deliveries d
    WHERE d.endpoint_seq = json_extract(wanted.value, '$[0]') AND d.order_group = json_extract(wanted.value, '$[1]')
      AND {ordered("d")})
"""  # noqa: S608
_OF_GROUP: Final = (
    f"d.endpoint_seq = deliveries.endpoint_seq AND d.order_group = deliveries.order_group AND {ordered('d')}"
)
# Use the same rule as the trigger (`store.schema_ordering`).
_UNBLOCK_FIRST: Final = f"""\
UPDATE deliveries SET due_at = :now
WHERE endpoint_seq = :endpoint_seq
  AND event_seq IN (SELECT value FROM json_each(:event_seqs))  -- JSON list
  AND order_group IS NOT NULL AND {blocked()}
  AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE {_OF_GROUP} AND d.due_at IS NOT NULL)
  AND event_seq = (
    SELECT d.event_seq FROM deliveries d WHERE {_OF_GROUP} AND d.due_at IS NULL ORDER BY d.event_seq LIMIT 1)
"""  # noqa: S608


def open_groups(connection: sqlite3.Connection, groups: Iterable[OrderGroup]) -> set[OrderGroup]:
    """Return the given groups that have an open delivery."""
    (found,) = connection.execute(_OPEN_GROUPS, {"groups": json.dumps(list(set(groups)))}).fetchone()
    return {OrderGroup(*each) for each in json.loads(found)}


def unblock_first(connection: sqlite3.Connection, endpoint_seq: int, event_seqs: Sequence[int], *, now: int) -> None:
    """Unblock an endpoint's deliveries of these events: make them due, unless others in their group block them."""
    parameters = {"endpoint_seq": endpoint_seq, "event_seqs": json.dumps(event_seqs), "now": now}
    connection.execute(_UNBLOCK_FIRST, parameters)
