"""Release held deliveries on PostgreSQL."""

from collections.abc import Sequence
from typing import Final

from uplift_server.store.hot_records import HeldRequest, Released
from uplift_server.store.postgres import statements
from uplift_server.store.postgres.connection import Raw, transaction
from uplift_server.store.postgres.order_groups import lock_order, unblock_first

_INT_MAX: Final = 0x7FFFFFFF


async def release_held(raw: Raw, requests: Sequence[HeldRequest], *, now: int) -> list[Released]:
    """Make held deliveries due at `now`, oldest events first. Return one result per request, in request order."""
    if not requests:
        return []
    async with transaction(raw):
        await lock_order(raw, (request.endpoint_seq for request in requests))
        await raw.execute(statements.LOCK_HELD, sorted({request.endpoint_seq & _INT_MAX for request in requests}))
        rows = await raw.fetch(statements.RELEASE_HELD, *zip(*requests, strict=True), now)
        for request, row in zip(requests, rows, strict=True):
            if row["ordered"]:
                await unblock_first(raw, request.endpoint_seq, row["ordered"], now=now)
        return [Released(row["released"], row["expired"], row["waits"]) for row in rows]
