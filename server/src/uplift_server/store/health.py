"""The health of endpoints, as it is stored apart from settlements, and what follows from it."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.health import Health
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.store import deliveries, endpoint_backlog
from uplift_server.store.endpoints import switch_off
from uplift_server.store.hot_records import HealthRow
from uplift_server.store.records import Attempt, DisabledReason, Endpoint, EndpointState
from uplift_server.store.schema import endpoints

BITE: Final = 1_000


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


def get(connection: Connection, endpoint_seqs: Collection[int]) -> dict[int, Health]:
    """How endpoints fare, those that exist."""
    found: dict[int, Health] = {}
    for some in _bites(endpoint_seqs):
        found |= _read(connection, endpoints.c.seq.in_(some))
    return found


def told_since(connection: Connection, at: int) -> dict[int, Health]:
    """How those endpoints fare that were attempted at an instant (Unix ms) or later."""
    return _read(connection, sa.or_(endpoints.c.last_success_at >= at, endpoints.c.last_failure_at >= at))


def excuse(connection: Connection, endpoint_seqs: Collection[int], since: int, until: int) -> None:
    """Let a stretch of time (Unix ms) count for nobody of those that fail: as much of it as they failed in."""
    began = sa.case((endpoints.c.failing_since > since, endpoints.c.failing_since), else_=since)
    for some in _bites(endpoint_seqs):
        change = sa.update(endpoints).where(endpoints.c.seq.in_(some), endpoints.c.failing_since < until)
        connection.execute(change.values(excused_ms=endpoints.c.excused_ms + until - began))


def note_success(connection: Connection, endpoint_seq: int, at: int) -> None:
    """An enabled endpoint that fails was attempted well at an instant (Unix ms), by a process that had it before.

    A later failure says more than that.
    """
    change = sa.update(endpoints).where(
        endpoints.c.seq == endpoint_seq,
        endpoints.c.deleted_at.is_(None),
        endpoints.c.state == int(EndpointState.ENABLED),
        endpoints.c.failing_since.is_not(None),
        endpoints.c.last_failure_at < at,
    )
    now_well = {"consecutive_failures": 0, "failing_since": None, "excused_ms": 0}
    connection.execute(change.values(**now_well, last_success_at=at, last_outcome=int(Outcome.DELIVERED)))


def _bites(endpoint_seqs: Collection[int]) -> Iterator[list[int]]:
    """In order, as others lock them; a statement takes no more than some ten thousand parameters."""
    seqs = sorted(endpoint_seqs)
    return (seqs[at : at + BITE] for at in range(0, len(seqs), BITE))


def _read(connection: Connection, which: sa.ColumnElement[bool]) -> dict[int, Health]:
    columns = [endpoints.c[name] for name in _COLUMNS]
    query = sa.select(endpoints.c.seq, *columns).where(which, endpoints.c.deleted_at.is_(None))
    return {
        seq: Health(failures, since, succeeded, failed, None if last is None else Outcome(last), excused, warned)
        for seq, failures, since, succeeded, failed, last, excused, warned in connection.execute(query)
    }


_COLUMNS: Final = (
    "consecutive_failures", "failing_since", "last_success_at", "last_failure_at", "last_outcome", "excused_ms",
    "warned_at",
)  # fmt: skip


def warned_at(connection: Connection, endpoint_seq: int) -> int | None:
    """When an endpoint's owner was warned (Unix ms), as it is stored."""
    instant: int | None = connection.scalar(sa.select(endpoints.c.warned_at).where(endpoints.c.seq == endpoint_seq))
    return instant


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
    besides = endpoint_backlog.oldest_held(connection, endpoint_seq, limit=deliveries.NEWEST)
    if failed_event is not None:
        besides.append(failed_event)
    return deliveries.last_failure(connection, endpoint_seq, besides=besides)
