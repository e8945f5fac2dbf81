"""Release held deliveries on PostgreSQL."""

from collections.abc import Sequence
from typing import Final

from uplift_server.store.hot_records import HeldWish, Released
from uplift_server.store.postgres import statements
from uplift_server.store.postgres.connection import Raw

_INT_MAX: Final = 0x7FFFFFFF


async def release_held(raw: Raw, wishes: Sequence[HeldWish], *, now: int) -> list[Released]:
    """See the contract."""
    if not wishes:
        return []
    async with raw.transaction():
        await raw.execute(statements.LOCK_HELD, sorted({wish.endpoint_seq & _INT_MAX for wish in wishes}))
        rows = await raw.fetch(statements.RELEASE_HELD, *zip(*wishes, strict=True), now)
        return [Released(*row) for row in rows]
