"""Lease due deliveries on PostgreSQL, release and reclaim leases, and find due times."""

from collections.abc import Sequence

from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.store.hot_records import DueEndpoint, LeasedDelivery, LeaseRequest
from uplift_server.store.postgres import statements
from uplift_server.store.postgres.connection import Raw


async def lease_due(
    raw: Raw, requests: Sequence[LeaseRequest], *, now: int, lease_until: int, process_id: int, body_bytes_max: int
) -> list[LeasedDelivery]:
    """For each request, lease up to `limit` due deliveries of the endpoint, earliest due time first."""
    endpoints, limits = [request.endpoint_seq for request in requests], [request.limit for request in requests]
    rows = await raw.fetch(statements.LEASE_DUE, endpoints, limits, now, process_id, lease_until, body_bytes_max)
    return [
        LeasedDelivery(
            event_seq=row["event_seq"],
            endpoint_seq=row["endpoint_seq"],
            fence=row["fence"],
            lease_until=lease_until,
            attempts_made=row["attempts_made"],
            scheduled_attempts=row["scheduled_attempts"],
            trigger=Trigger(row["trigger"]),
            event_id=row["id"],
            type_seq=row["type_seq"],
            created_at=row["created_at"],
            expires_at=row["expires_at"],
            body=row["body"],
            resume_status=None if row["resume_status"] is None else Status(row["resume_status"]),
            resume_due_at=row["resume_due_at"],
            replay_seq=row["replay_seq"],
            order_group=row["order_group"],
        )
        for row in rows
    ]


async def release(raw: Raw, leases: Sequence[tuple[int, int, int]], *, now: int) -> None:
    """Release unused leases (event number, endpoint number, fence), and make their deliveries due at `now`."""
    if leases:
        await raw.execute(statements.RELEASE, *zip(*sorted(leases), strict=True), now)


async def reclaim(raw: Raw, *, now: int, process_id: int | None, limit: int) -> int:
    """Release up to `limit` leases: expired leases, or the leases of one process. Return their number."""
    if process_id is None:
        count: int = await raw.fetchval(statements.RECLAIM_EXPIRED, now, limit)
    else:
        count = await raw.fetchval(statements.RECLAIM_OWNED, now, limit, process_id)
    return count


async def due_endpoints(raw: Raw, *, after: int, limit: int) -> list[DueEndpoint]:
    """List endpoints with waiting deliveries, sorted by number, each with its earliest due time."""
    return [DueEndpoint(*row) for row in await raw.fetch(statements.DUE_ENDPOINTS, after, limit)]


async def next_due(raw: Raw, endpoint_seqs: Sequence[int]) -> list[DueEndpoint]:
    """Return the earliest due time for each endpoint in `endpoint_seqs` that has waiting deliveries."""
    return [DueEndpoint(*row) for row in await raw.fetch(statements.NEXT_DUE, endpoint_seqs)]
