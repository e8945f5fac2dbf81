"""Release held deliveries on PostgreSQL."""

from collections.abc import Sequence
from typing import Final

from uplift_server.store.hot_records import HeldRequest, Released
from uplift_server.store.postgres import statements
from uplift_server.store.postgres.connection import Raw

_INT_MAX: Final = 0x7FFFFFFF


async def release_held(raw: Raw, requests: Sequence[HeldRequest], *, now: int) -> list[Released]:
    """Make held deliveries due at `now`, oldest events first. Return a result for each request, in order."""
    if not requests:
        return []
    async with raw.transaction():
        await raw.execute(statements.LOCK_HELD, sorted({request.endpoint_seq & _INT_MAX for request in requests}))
        rows = await raw.fetch(statements.RELEASE_HELD, *zip(*requests, strict=True), now)
        return [Released(*row) for row in rows]
