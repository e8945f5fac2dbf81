"""The hot verbs on the raw driver: set-based statements over arrays.

Each is given a connection that is in no transaction, and begins one where it needs more than one statement. It is
repeated as a whole where another transaction was in its way.
"""

from collections.abc import Sequence

from uplift_server.store.hot_records import (
    Appended,
    DueEndpoint,
    HealthRow,
    HeldWish,
    IdempotencyConflict,
    LeasedDelivery,
    LeaseWish,
    NewEvent,
    Released,
    Settlement,
)
from uplift_server.store.postgres.connection import Raw


async def append(raw: Raw, groups: Sequence[Sequence[NewEvent]]) -> list[list[Appended] | IdempotencyConflict]:
    """See the contract. Within the caller's transaction where there is one."""
    raise NotImplementedError


async def lease_due(
    raw: Raw, wishes: Sequence[LeaseWish], *, now: int, lease_until: int, owner: int, body_bytes_max: int
) -> list[LeasedDelivery]:
    """See the contract."""
    raise NotImplementedError


async def settle(
    raw: Raw, settlements: Sequence[Settlement], health: Sequence[HealthRow]
) -> frozenset[tuple[int, int]]:
    """See the contract."""
    raise NotImplementedError


async def release(raw: Raw, leases: Sequence[tuple[int, int, int]], *, now: int) -> None:
    """See the contract."""
    raise NotImplementedError


async def reclaim(raw: Raw, *, now: int, owner: int | None, limit: int) -> int:
    """See the contract."""
    raise NotImplementedError


async def release_held(raw: Raw, wishes: Sequence[HeldWish], *, now: int) -> list[Released]:
    """See the contract."""
    raise NotImplementedError


async def due_endpoints(raw: Raw, *, after: int, limit: int) -> list[DueEndpoint]:
    """See the contract."""
    raise NotImplementedError
