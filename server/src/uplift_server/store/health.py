"""Reads endpoint health, and writes health changes that are not part of a settlement."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.health import Health
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.store.endpoints import deactivate
from uplift_server.store.hot_records import HealthRow
from uplift_server.store.records import DisabledReason, Endpoint, EndpointState
from uplift_server.store.schema import endpoints

_BATCH_ENDPOINTS: Final = 1_000
"""Number of endpoints per statement. It must be lower than the database's maximum number of parameters."""


_COLUMNS: Final = (
    "seq", "consecutive_failures", "failing_since", "last_success_at", "last_failure_at", "last_outcome", "excused_ms",
    "warned_at", "last_status_code", "last_error", "last_location", "probe_at",
)  # fmt: skip
_READ: Final = sa.select(*(endpoints.c[name] for name in _COLUMNS)).where(endpoints.c.deleted_at.is_(None))
_GET: Final = _READ.where(endpoints.c.seq.in_(sa.bindparam("seqs", expanding=True)))
_ATTEMPTED_SINCE: Final = _READ.where(
    sa.or_(endpoints.c.last_success_at >= sa.bindparam("at"), endpoints.c.last_failure_at >= sa.bindparam("at"))
)


def save(connection: Connection, rows: Sequence[HealthRow]) -> None:
    """Write endpoint health."""
    if not rows:
        return
    columns = [name for name in HealthRow._fields if name != "endpoint_seq"]
    query = (
        sa.update(endpoints)
        .where(endpoints.c.seq == sa.bindparam("of_endpoint"))
        .values({name: sa.bindparam(f"new_{name}") for name in columns})
    )
    connection.execute(
        query,
        [{"of_endpoint": row.endpoint_seq} | {f"new_{name}": getattr(row, name) for name in columns} for row in rows],
    )


def get(connection: Connection, endpoint_seqs: Collection[int]) -> dict[int, Health]:
    """Return the health of these endpoints by endpoint number. Deleted endpoints are omitted."""
    found: dict[int, Health] = {}
    for some in _batches(endpoint_seqs):
        found |= _health_by_endpoint(connection.execute(_GET, {"seqs": some}))
    return found


def attempted_since(connection: Connection, at: int) -> dict[int, Health]:
    """Return the health of the endpoints whose last success or failure was at `at` (Unix ms) or later."""
    return _health_by_endpoint(connection.execute(_ATTEMPTED_SINCE, {"at": at}))


def excuse(connection: Connection, endpoint_seqs: Collection[int], since: int, until: int) -> None:
    """Exclude the time between `since` and `until` (Unix ms) from the time that these endpoints have been failing."""
    began = sa.case((endpoints.c.failing_since > since, endpoints.c.failing_since), else_=since)
    for some in _batches(endpoint_seqs):
        change = sa.update(endpoints).where(endpoints.c.seq.in_(some), endpoints.c.failing_since < until)
        connection.execute(change.values(excused_ms=endpoints.c.excused_ms + until - began))


def record_success(connection: Connection, endpoint_seq: int, at: int) -> None:
    """Record a success reported by the process that previously owned the endpoint.

    `at` is the time of the success (Unix ms). Change nothing if a later attempt has failed, or if the endpoint is
    not enabled or not failing.
    """
    change = sa.update(endpoints).where(
        endpoints.c.seq == endpoint_seq,
        endpoints.c.deleted_at.is_(None),
        endpoints.c.state == int(EndpointState.ENABLED),
        endpoints.c.failing_since.is_not(None),
        endpoints.c.last_failure_at < at,
    )
    connection.execute(
        change.values(
            consecutive_failures=0,
            failing_since=None,
            last_success_at=at,
            last_outcome=int(Outcome.DELIVERED),
            excused_ms=0,
            last_status_code=None,
            last_error=None,
            last_location=None,
            probe_at=None,
        )
    )


def _batches(endpoint_seqs: Collection[int]) -> Iterator[list[int]]:
    """Divide endpoints into batches, sorted by number. All writers lock endpoints in this order."""
    seqs = sorted(endpoint_seqs)
    return (seqs[at : at + _BATCH_ENDPOINTS] for at in range(0, len(seqs), _BATCH_ENDPOINTS))


def _health_by_endpoint(rows: Iterable[Any]) -> dict[int, Health]:
    return {
        seq: Health(failures, since, succeeded, failed, None if last is None else Outcome(last), *others)
        for seq, failures, since, succeeded, failed, last, *others in rows
    }


def warned_at(connection: Connection, endpoint_seq: int) -> int | None:
    """Lock an endpoint until the transaction ends.

    Return the time of the last warning that the endpoint is failing (Unix ms), or None if there was no warning.
    """
    query = sa.select(endpoints.c.warned_at).where(endpoints.c.seq == endpoint_seq)
    found: int | None = connection.scalar(query.with_for_update())
    return found


def set_warned_at(connection: Connection, endpoint_seq: int, warned_at: int | None) -> bool:
    """Set the time (Unix ms) of the warning that an endpoint is failing. Set None after the endpoint has recovered.

    Return False if the endpoint does not exist or is not enabled.
    """
    change = (
        sa.update(endpoints)
        .where(
            endpoints.c.seq == endpoint_seq,
            endpoints.c.deleted_at.is_(None),
            endpoints.c.state == int(EndpointState.ENABLED),
        )
        .values(warned_at=warned_at)
    )
    return connection.execute(change).rowcount > 0


def disable(
    connection: Connection, endpoint_seq: int, reason: DisabledReason, *, since: int | None, now: int
) -> Endpoint | None:
    """Disable an endpoint that has been enabled since `since` (its `state_since`), with `endpoints.deactivate`.

    Return the endpoint, or None if it is not enabled, or if it was enabled again and therefore has new health.
    """
    enabled = sa.select(endpoints.c.seq).where(
        endpoints.c.seq == endpoint_seq,
        endpoints.c.state == int(EndpointState.ENABLED),
        endpoints.c.state_since.is_not_distinct_from(since),
    )
    if connection.execute(enabled.with_for_update()).first() is None:
        return None
    return deactivate(connection, endpoint_seq, EndpointState.DISABLED, reason, now=now)
