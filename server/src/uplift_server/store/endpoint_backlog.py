"""Holds the waiting deliveries of an endpoint, drops its held deliveries, or cancels both, in batches."""

from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.lifecycle import ENDED, OPEN, FailedReason, Status, Trigger
from uplift_server.store import locks, status_sql
from uplift_server.store.deliveries import IN_FLIGHT
from uplift_server.store.endpoints import exists
from uplift_server.store.errors import Conflict, InFlight, Missing
from uplift_server.store.records import EndpointState, HeldAction
from uplift_server.store.schema import deliveries, endpoints


@dataclass(frozen=True, slots=True)
class _Part:
    """A partial index of deliveries, and its condition."""

    index: str
    condition: str

    def keys(self, connection: Connection, endpoint_seq: int, limit: int) -> sa.Select[Any]:
        """Return a query for the event numbers of an endpoint's deliveries in this index, up to `limit` numbers."""
        # Name the index: without table statistics, SQLite would scan all deliveries of the endpoint.
        named = sa.text(f"deliveries INDEXED BY {self.index}") if connection.dialect.name == "sqlite" else deliveries
        own = sa.column("endpoint_seq", sa.BigInteger) == endpoint_seq
        event_seq = sa.column("event_seq", sa.BigInteger)
        return sa.select(event_seq).select_from(named).where(own, sa.text(self.condition)).limit(limit)


class DropResult(NamedTuple):
    """The result of one batch of `drop_held`."""

    rows: int
    has_more: bool = False
    """Whether a further batch is necessary."""
    completed_through: int | None = None
    """The event number up to which all held deliveries were dropped. Set only after the last batch."""


_WAITING: Final = _Part("deliveries_due", status_sql.waiting())
_HELD: Final = _Part("deliveries_held", status_sql.held())

# A loose index scan: it jumps from the first entry of one endpoint to the first entry of the next.
_HOLDING: Final = sa.text(f"""
WITH RECURSIVE holding(endpoint_seq) AS (
    SELECT (SELECT min(d.endpoint_seq) FROM deliveries d WHERE {status_sql.held("d")} AND d.endpoint_seq > :after)
    UNION ALL
    SELECT (SELECT min(d.endpoint_seq) FROM deliveries d
            WHERE {status_sql.held("d")} AND d.endpoint_seq > holding.endpoint_seq)
    FROM holding WHERE holding.endpoint_seq IS NOT NULL
)
SELECT endpoint_seq FROM holding WHERE endpoint_seq IS NOT NULL LIMIT :limit
""")  # noqa: S608


def endpoints_with_held(connection: Connection, *, after: int = 0, limit: int = 1000) -> list[int]:
    """Return the numbers of the endpoints that have held deliveries, in ascending order.

    The result includes deleted endpoints.
    """
    return list(connection.scalars(_HOLDING, {"after": after, "limit": limit}))


def held_counts(
    connection: Connection, endpoint_seqs: Iterable[int], *, limit: int, inactive: Container[int] = ()
) -> dict[int, int]:
    """Count each endpoint's held deliveries. Each count stops at `limit`.

    For the endpoints in `inactive` (paused or disabled), also count the waiting deliveries, because the server will
    hold these deliveries.
    """
    counts = {}
    for endpoint_seq in endpoint_seqs:
        count = 0
        for part in (_HELD, _WAITING) if endpoint_seq in inactive else (_HELD,):
            keys = part.keys(connection, endpoint_seq, limit - count).subquery("page")
            count += connection.scalar(sa.select(sa.func.count()).select_from(keys)) or 0
        counts[endpoint_seq] = count
    return counts


def hold_waiting(connection: Connection, endpoint_seq: int, *, now: int, limit: int) -> int:
    """Hold up to `limit` waiting deliveries of a paused or disabled endpoint. Return their number.

    Leased deliveries stay leased. A delivery that had ended before its resend or replay returns to its earlier status.
    Deliveries of a replay stay assigned to the replay. Do nothing if another process has enabled the endpoint, or while
    held deliveries are being dropped.
    """
    locks.take_order(connection, [endpoint_seq])
    there = sa.and_(endpoints.c.seq == endpoint_seq, endpoints.c.deleted_at.is_(None))
    query = sa.select(endpoints.c.state, endpoints.c.held_action).where(there)
    # Lock the endpoint, because a concurrent batch would find these rows changed and report that no rows are left.
    row = connection.execute(query.with_for_update(key_share=True)).first()
    if row is not None and (row.state == EndpointState.ENABLED or row.held_action == HeldAction.DROP):
        return 0
    resumed = deliveries.c.resume_status
    ended = resumed.in_(ENDED)
    return _change(
        connection,
        endpoint_seq,
        _WAITING,
        limit,
        status=sa.case((ended, resumed), else_=int(Status.HELD)),
        completed_at=sa.case((ended, sa.func.coalesce(deliveries.c.completed_at, now)), else_=None),
        failed_reason=_reason_kept(),
        replay_seq=deliveries.c.replay_seq,
    )


def drop_held(connection: Connection, endpoint_seq: int, *, now: int, limit: int) -> DropResult:
    """Cancel a batch of held deliveries, if the endpoint's stored `held_action` is DROP.

    The last batch clears `held_action`.
    """
    locks.take_order(connection, [endpoint_seq])
    own = sa.and_(endpoints.c.seq == endpoint_seq, endpoints.c.held_action == int(HeldAction.DROP))
    through = connection.scalar(sa.select(endpoints.c.held_through).where(own).with_for_update(key_share=True))
    if through is None:
        return DropResult(0)
    count = cancel_held(connection, endpoint_seq, through=through, now=now, limit=limit)
    if connection.execute(_held_through(through).keys(connection, endpoint_seq, 1)).first() is not None:
        return DropResult(count, has_more=True)
    connection.execute(sa.update(endpoints).where(own).values(held_action=None, held_through=None))
    return DropResult(count, completed_through=through)


def cancel_held(connection: Connection, endpoint_seq: int, *, through: int, now: int, limit: int) -> int:
    """Cancel up to `limit` held deliveries of events with numbers up to `through`. Return their number."""
    part = _held_through(through)
    return _change(connection, endpoint_seq, part, limit, status=int(Status.CANCELLED), completed_at=now)


def _held_through(through: int) -> _Part:
    return replace(_HELD, condition=f"{_HELD.condition} AND event_seq <= {int(through)}")


def cancel_waiting(connection: Connection, endpoint_seq: int, *, now: int, limit: int) -> int:
    """Cancel up to `limit` waiting and held deliveries of a deleted endpoint. Return their number.

    Leased deliveries stay leased. Do nothing if the endpoint was not deleted: a caller whose cache does not contain a
    new endpoint yet can assume by mistake that the endpoint was deleted.
    """
    locks.take_order(connection, [endpoint_seq])
    if exists(connection, endpoint_seq):
        return 0
    count = 0
    for part in (_WAITING, _HELD):
        count += _change(connection, endpoint_seq, part, limit - count, **_cancelled(now))
    return count


def cancel(connection: Connection, event_seq: int, endpoint_seq: int, *, fence: int | None, now: int) -> None:
    """Cancel a waiting or held delivery, or a leased delivery if `fence` is the fence of its lease.

    Raises InFlight if the delivery is leased with another fence, Conflict if the delivery has ended, or Missing if
    retention has deleted it.
    """
    locks.take_order(connection, [endpoint_seq])
    own = sa.and_(deliveries.c.event_seq == event_seq, deliveries.c.endpoint_seq == endpoint_seq)
    row = connection.execute(sa.select(deliveries).where(own).with_for_update()).first()
    if row is None:
        raise Missing
    if row.status not in OPEN:
        raise Conflict(
            f"The delivery has the status {Status(row.status).text}. You can cancel only pending and held deliveries."
        )
    if row.lease_owner != 0 and row.fence != fence:
        raise InFlight(IN_FLIGHT)
    # The new fence invalidates earlier reads of the delivery.
    values = {**_cancelled(now), "lease_owner": 0, "fence": row.fence + 1}
    connection.execute(sa.update(deliveries).where(own).values(**_ended(values)))


def cancel_of_events(connection: Connection, event_seqs: Collection[int], *, now: int) -> None:
    """Cancel the open deliveries of events, including leased deliveries.

    All deliveries of the events get a new fence, which invalidates attempts in flight.
    """
    own = deliveries.c.event_seq.in_(event_seqs)
    ended = {"lease_owner": 0, "fence": deliveries.c.fence + 1, "order_group": None}
    # Use two statements, because ended deliveries keep their status and open deliveries become cancelled.
    connection.execute(sa.update(deliveries).where(own, deliveries.c.status.not_in(OPEN)).values(_ended(ended)))
    connection.execute(
        sa.update(deliveries).where(own, deliveries.c.status.in_(OPEN)).values(_ended({**_cancelled(now), **ended}))
    )


def _change(connection: Connection, endpoint_seq: int, part: _Part, limit: int, **values: Any) -> int:
    # Another transaction can lease or change these rows concurrently. Because of the locks, PostgreSQL skips rows that
    # no longer match and reads more rows, so a result of 0 means that no rows are left. The outer condition covers rows
    # that change before the update. Use a CTE, because PostgreSQL can run a locking subquery more than once and exceed
    # the limit.
    page = part.keys(connection, endpoint_seq, limit).with_for_update().cte("page", nesting=True)
    still = [sa.text(part.condition)] if connection.dialect.name == "postgresql" else []
    return connection.execute(
        sa.update(deliveries)
        .where(
            deliveries.c.endpoint_seq == endpoint_seq, deliveries.c.event_seq.in_(sa.select(page.c.event_seq)), *still
        )
        .values(**_ended(values))
    ).rowcount


def _cancelled(now: int) -> dict[str, Any]:
    # If the delivery was being resent, it returns to its earlier final status.
    ended = deliveries.c.resume_status.in_([Status.DELIVERED, Status.FAILED])
    return {
        "status": sa.case((ended, deliveries.c.resume_status), else_=int(Status.CANCELLED)),
        "completed_at": sa.func.coalesce(deliveries.c.completed_at, now),
        "failed_reason": _reason_kept(),
    }


def _reason_kept() -> sa.ColumnElement[int]:
    """Return the SQL expression for the failure reason of a held or cancelled delivery.

    A failed delivery that was being resent keeps its reason. A test delivery without attempts has no reason yet, and
    gets `exhausted`.
    """
    failed = deliveries.c.resume_status == int(Status.FAILED)
    reason = sa.func.coalesce(deliveries.c.failed_reason, int(FailedReason.EXHAUSTED))
    return sa.case((failed, reason), else_=deliveries.c.failed_reason)


def _ended(values: dict[str, Any]) -> dict[str, Any]:
    """Return `values`, and the column values that clear the next attempt, resend and replay of a delivery."""
    return {
        "due_at": None,
        # Keep the trigger of a test delivery.
        "trigger": sa.case((deliveries.c.trigger == int(Trigger.TEST), int(Trigger.TEST)), else_=int(Trigger.SCHEDULE)),
        "resume_status": None,
        "resume_due_at": None,
        "replay_seq": None,
        **values,
    }
