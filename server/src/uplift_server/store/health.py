"""The health of endpoints, as it is stored apart from settlements, and what follows from it."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store import deliveries, waiting
from uplift_server.store.endpoints import switch_off
from uplift_server.store.hot_records import HealthRow
from uplift_server.store.records import Attempt, DisabledReason, Endpoint, EndpointState
from uplift_server.store.schema import endpoints


def save(connection: Connection, rows: Sequence[HealthRow]) -> None:
    """Write how endpoints fare now."""
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


def set_warned(connection: Connection, endpoint_seq: int, warned_at: int | None) -> bool:
    """Remember when an enabled endpoint's owner was warned (Unix ms), or that the recovery was told.

    Gives whether there still is such an endpoint.
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


def disable(connection: Connection, endpoint_seq: int, reason: DisabledReason, *, now: int) -> Endpoint | None:
    """Disable an endpoint that is enabled; gives it as it is now, None if it is no more. See `endpoints.switch_off`."""
    enabled = sa.select(endpoints.c.seq).where(
        endpoints.c.seq == endpoint_seq, endpoints.c.state == int(EndpointState.ENABLED)
    )
    if connection.execute(enabled).first() is None:
        return None
    return switch_off(connection, endpoint_seq, EndpointState.DISABLED, reason, now=now)


def last_failure(connection: Connection, endpoint_seq: int, failed_event: int | None) -> Attempt | None:
    """The attempt that tells why an endpoint fails; `failed_event` is the event that failed last, if that is known.

    Where much waits behind a breaker the newest deliveries were never attempted. Of those that are held the oldest
    were: they tell of an endpoint that was disabled before a restart.
    """
    besides = waiting.oldest_held(connection, endpoint_seq, limit=deliveries.NEWEST)
    if failed_event is not None:
        besides.append(failed_event)
    return deliveries.last_failure(connection, endpoint_seq, besides=besides)
