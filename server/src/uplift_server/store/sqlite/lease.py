"""Lease due deliveries on SQLite, release and reclaim leases, and find due times."""

import json
import sqlite3
from collections.abc import Collection, Sequence

from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.store.hot_records import DueEndpoint, LeasedDelivery, LeaseRequest
from uplift_server.store.sqlite import statements
from uplift_server.store.sqlite.statements import DueRow, LeasedRow, ReleasedRow


def lease_due(
    connection: sqlite3.Connection,
    requests: Sequence[LeaseRequest],
    *,
    now: int,
    lease_until: int,
    process_id: int,
    body_bytes_max: int,
) -> list[LeasedDelivery]:
    """For each request, lease up to `limit` due deliveries of the endpoint, earliest due time first."""
    due = _due(connection, requests, now)
    taken, body_bytes = 0, 0
    while taken < len(due) and body_bytes <= body_bytes_max:
        body_bytes += due[taken].body_bytes
        taken += 1
    bodies = _bodies(connection, {row.event_seq for row in due[:taken]})
    leased = [
        LeasedDelivery(
            event_seq=row.event_seq,
            endpoint_seq=row.endpoint_seq,
            fence=row.fence + 1,
            lease_until=lease_until,
            attempts_made=row.attempts_made,
            scheduled_attempts=row.scheduled_attempts,
            trigger=Trigger(row.trigger),
            event_id=bytes.fromhex(row.event_id_hex),
            type_seq=row.type_seq,
            created_at=row.created_at,
            expires_at=row.expires_at,
            body=bodies[row.event_seq],
            resume_status=None if row.resume_status is None else Status(row.resume_status),
            resume_due_at=row.resume_due_at,
            replay_seq=row.replay_seq,
            order_group=row.order_group,
        )
        for row in due[:taken]
    ]
    statements.LEASE.run(
        connection, [LeasedRow(process_id, lease_until, d.fence, d.event_seq, d.endpoint_seq) for d in leased]
    )
    return leased


def _due(connection: sqlite3.Connection, requests: Sequence[LeaseRequest], now: int) -> list[DueRow]:
    """For each request, return up to `limit` due deliveries of the endpoint, earliest due time first."""
    found: dict[int, list[DueRow]] = {}
    # Endpoints with similar limits share a statement, which reads up to the highest of their limits for each endpoint.
    by_size: dict[int, list[LeaseRequest]] = {}
    for request in requests:
        by_size.setdefault(request.limit.bit_length(), []).append(request)
    for some in by_size.values():
        parameters = {
            "now": now,
            "limit": max(request.limit for request in some),
            "endpoint_seqs": json.dumps([request.endpoint_seq for request in some]),
        }
        (text,) = connection.execute(statements.DUE_DELIVERIES, parameters).fetchone()
        for request, rows in zip(some, json.loads(text), strict=True):
            # Sort the rows, because SQL guarantees no order for the rows of a subquery.
            found[request.endpoint_seq] = sorted(DueRow(*row) for row in rows)[: request.limit]
    return [due for request in requests for due in found[request.endpoint_seq]]


def _bodies(connection: sqlite3.Connection, event_seqs: Collection[int]) -> dict[int, bytes]:
    parameters = {"event_seqs": json.dumps(list(event_seqs))}
    sizes, joined = connection.execute(statements.BODIES, parameters).fetchone()
    bodies, start = {}, 0
    for seq, size in json.loads(sizes):
        bodies[seq] = joined[start : start + size]
        start += size
    return bodies


def release(connection: sqlite3.Connection, leases: Sequence[tuple[int, int, int]], *, now: int) -> None:
    """Release unused leases (event number, endpoint number, fence), and make their deliveries due at `now`."""
    rows = [ReleasedRow(now, event, endpoint, fence) for event, endpoint, fence in leases]
    statements.RELEASE.run(connection, rows)


def reclaim(connection: sqlite3.Connection, *, now: int, process_id: int | None, limit: int) -> int:
    """Release up to `limit` leases: expired leases, or the leases of one process. Return their number."""
    if process_id is None:
        return connection.execute(statements.RECLAIM_EXPIRED, {"now": now, "limit": limit}).rowcount
    return connection.execute(statements.RECLAIM_OWNED, {"now": now, "process_id": process_id, "limit": limit}).rowcount


def due_endpoints(connection: sqlite3.Connection, *, after: int, limit: int) -> list[DueEndpoint]:
    """List endpoints with waiting deliveries, sorted by number, each with its earliest due time."""
    (text,) = connection.execute(statements.DUE_ENDPOINTS, {"after": after, "limit": limit}).fetchone()
    return [DueEndpoint(*row) for row in json.loads(text)]


def next_due(connection: sqlite3.Connection, endpoint_seqs: Sequence[int]) -> list[DueEndpoint]:
    """Return the earliest due time for each endpoint in `endpoint_seqs` that has waiting deliveries."""
    parameters = {"endpoint_seqs": json.dumps(list(endpoint_seqs))}
    (text,) = connection.execute(statements.NEXT_DUE, parameters).fetchone()
    return [DueEndpoint(endpoint, due_at) for endpoint, due_at in json.loads(text) if due_at is not None]
