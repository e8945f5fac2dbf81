"""Delivery order groups on PostgreSQL. The caller must lock the delivery order (`store.locks`)."""

from collections.abc import Iterable, Sequence
from typing import Final

from uplift_server.store.hot_records import OrderGroup
from uplift_server.store.locks import TAKE_ORDER, order_slots
from uplift_server.store.postgres.connection import Raw
from uplift_server.store.status_sql import blocked, ordered

_OPEN_GROUPS: Final = f"""\
SELECT wanted.endpoint_seq, wanted.order_group
FROM unnest(
        $1::bigint[],                -- endpoint_seq
        $2::bigint[]                 -- order_group
    ) AS wanted(endpoint_seq, order_group)
WHERE EXISTS (
    SELECT FROM deliveries d
    WHERE d.endpoint_seq = wanted.endpoint_seq AND d.order_group = wanted.order_group AND {ordered("d")} OFFSET 0)
"""  # noqa: S608
_OF_GROUP: Final = f"o.endpoint_seq = d.endpoint_seq AND o.order_group = d.order_group AND {ordered('o')}"
# Use the same rule as the trigger (`store.schema_ordering`).
_UNBLOCK_FIRST: Final = f"""\
UPDATE deliveries d SET due_at = $3  -- now
WHERE d.endpoint_seq = $1
  AND d.event_seq = ANY ($2::bigint[])
  AND d.order_group IS NOT NULL AND {blocked("d")}
  AND NOT EXISTS (SELECT FROM deliveries o WHERE {_OF_GROUP} AND o.due_at IS NOT NULL OFFSET 0)
  AND d.event_seq = (
    SELECT o.event_seq FROM deliveries o WHERE {_OF_GROUP} AND o.due_at IS NULL ORDER BY o.event_seq LIMIT 1)
"""  # noqa: S608


async def lock_order(raw: Raw, endpoint_seqs: Iterable[int]) -> None:
    """Lock the delivery order of endpoints until the transaction ends."""
    await raw.execute(TAKE_ORDER, order_slots(endpoint_seqs))


async def open_groups(raw: Raw, groups: Iterable[OrderGroup]) -> set[OrderGroup]:
    """Return the given groups that have an open delivery."""
    rows = await raw.fetch(_OPEN_GROUPS, *zip(*set(groups), strict=True))
    return {OrderGroup(*row) for row in rows}


async def unblock_first(raw: Raw, endpoint_seq: int, event_seqs: Sequence[int], *, now: int) -> None:
    """Unblock an endpoint's deliveries of these events: make them due, unless others in their group block them."""
    await raw.execute(_UNBLOCK_FIRST, endpoint_seq, event_seqs, now)
