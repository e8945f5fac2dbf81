"""What waits for an endpoint, pending or held: put aside, dropped and cancelled, in bites beside traffic."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.lifecycle import ENDED, OPEN, FailedReason, Status, Trigger
from uplift_server.store import status_sql
from uplift_server.store.deliveries import IN_FLIGHT
from uplift_server.store.endpoints import is_there
from uplift_server.store.errors import Conflict, InFlight, Missing
from uplift_server.store.records import EndpointState, HeldAction
from uplift_server.store.schema import deliveries, endpoints


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of the deliveries: those of a partial index, by the index's own condition."""

    index: str
    condition: str

    def keys(self, connection: Connection, endpoint_seq: int, limit: int) -> sa.Select[Any]:
        """The events of an endpoint's deliveries that are among these."""
        # Without statistics SQLite would rather go through the endpoint's whole history.
        named = sa.text(f"deliveries INDEXED BY {self.index}") if connection.dialect.name == "sqlite" else deliveries
        own = sa.column("endpoint_seq", sa.BigInteger) == endpoint_seq
        event_seq = sa.column("event_seq", sa.BigInteger)
        return sa.select(event_seq).select_from(named).where(own, sa.text(self.condition)).limit(limit)


class Removed(NamedTuple):
    """What a bite of dropping did."""

    rows: int
    goes_on: bool = False
    """Whether something is still to be dropped."""
    over_through: int | None = None
    """Where it was the last: up to which event it was said to drop."""


_WAITING: Final = _Part("deliveries_due", status_sql.waiting())
_HELD: Final = _Part("deliveries_held", status_sql.held())

# From one endpoint's first entry straight to the next endpoint's, however many each has.
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


def holding_endpoints(connection: Connection, *, after: int = 0, limit: int = 1000) -> list[int]:
    """The endpoints that have held deliveries, deleted ones too, by number."""
    return list(connection.scalars(_HOLDING, {"after": after, "limit": limit}))


def held_counts(
    connection: Connection, endpoint_seqs: Iterable[int], *, limit: int, off: Container[int] = ()
) -> dict[int, int]:
    """How many deliveries each endpoint holds, counted up to a limit.

    For those that are `off` what waits counts, too: it is about to be held.
    """
    counts = {}
    for endpoint_seq in endpoint_seqs:
        count = 0
        for part in (_HELD, _WAITING) if endpoint_seq in off else (_HELD,):
            keys = part.keys(connection, endpoint_seq, limit - count).subquery("page")
            count += connection.scalar(sa.select(sa.func.count()).select_from(keys)) or 0
        counts[endpoint_seq] = count
    return counts


def oldest_held(connection: Connection, endpoint_seq: int, *, limit: int) -> list[int]:
    """The first events whose deliveries an endpoint holds."""
    return list(connection.scalars(_HELD.keys(connection, endpoint_seq, limit).order_by(sa.column("event_seq"))))


def hold_waiting(connection: Connection, endpoint_seq: int, *, now: int, limit: int) -> int:
    """Hold what waits for an endpoint that is off, due or not; how many. Leased ones are left to whoever has them.

    What was to be sent once more, outside its schedule, is again what it was; a replay that had it in hand takes it
    again when the endpoint is on. Nothing is held where the endpoint is on by now, or is to drop what it held before:
    another process may have said so that whoever asks has not heard of.
    """
    is_on = endpoints.c.state == int(EndpointState.ENABLED)
    drops = endpoints.c.held_action == int(HeldAction.DROP)
    there = sa.and_(endpoints.c.seq == endpoint_seq, endpoints.c.deleted_at.is_(None))
    otherwise = sa.select(endpoints.c.seq).where(there, is_on | drops)
    if connection.execute(otherwise).first() is not None:
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


def drop_held(connection: Connection, endpoint_seq: int, *, now: int, limit: int) -> Removed:
    """Cancel some of what an endpoint was said to drop; what is said is asked of the database in the same transaction.

    With the last of it, nothing is to be dropped any more.
    """
    own = sa.and_(endpoints.c.seq == endpoint_seq, endpoints.c.held_action == int(HeldAction.DROP))
    through = connection.scalar(sa.select(endpoints.c.held_through).where(own))
    if through is None:
        return Removed(0)
    count = cancel_held(connection, endpoint_seq, through=through, now=now, limit=limit)
    if connection.execute(_held_through(through).keys(connection, endpoint_seq, 1)).first() is not None:
        return Removed(count, goes_on=True)
    connection.execute(sa.update(endpoints).where(own).values(held_action=None, held_through=None))
    return Removed(count, over_through=through)


def cancel_held(connection: Connection, endpoint_seq: int, *, through: int, now: int, limit: int) -> int:
    """Cancel what an endpoint holds of events up to a number; how many."""
    part = _held_through(through)
    return _change(connection, endpoint_seq, part, limit, status=int(Status.CANCELLED), completed_at=now)


def _held_through(through: int) -> _Part:
    return replace(_HELD, condition=f"{_HELD.condition} AND event_seq <= {int(through)}")


def cancel_waiting(connection: Connection, endpoint_seq: int, *, now: int, limit: int) -> int:
    """Cancel waiting and held deliveries of a deleted endpoint; how many. Leased ones are left to whoever has them.

    Whoever asks does not know the endpoint. Where it is new, and was committed just now with its greeting, nothing is
    cancelled.
    """
    if is_there(connection, endpoint_seq):
        return 0
    count = 0
    # Two searches, each by an index of its own.
    for part in (_WAITING, _HELD):
        count += _change(connection, endpoint_seq, part, limit - count, **_cancelled(now))
    return count


def cancel(connection: Connection, event_seq: int, endpoint_seq: int, *, fence: int | None, now: int) -> None:
    """Cancel one delivery that waits or is held; a leased one only under the fence of the lease.

    Raises Conflict for one that is neither, InFlight for one that is leased, Missing where retention has removed it.
    """
    own = sa.and_(deliveries.c.event_seq == event_seq, deliveries.c.endpoint_seq == endpoint_seq)
    row = connection.execute(sa.select(deliveries).where(own).with_for_update()).first()
    if row is None:
        raise Missing
    if row.status not in OPEN:
        raise Conflict(f"The delivery is {Status(row.status).text}; only what is pending or held can be cancelled.")
    if row.lease_owner != 0 and row.fence != fence:
        raise InFlight(IN_FLIGHT)
    # The new fence outdates whatever was read of the delivery before.
    values = {**_cancelled(now), "lease_owner": 0, "fence": row.fence + 1}
    connection.execute(sa.update(deliveries).where(own).values(**_ended(values)))


def _change(connection: Connection, endpoint_seq: int, part: _Part, limit: int, **values: Any) -> int:
    keys = part.keys(connection, endpoint_seq, limit)
    # On PostgreSQL somebody may lease one of them just now: it is looked at again once that is done.
    still = [sa.text(part.condition)] if connection.dialect.name == "postgresql" else []
    return connection.execute(
        sa.update(deliveries)
        .where(deliveries.c.endpoint_seq == endpoint_seq, deliveries.c.event_seq.in_(keys), *still)
        .values(**_ended(values))
    ).rowcount


def _cancelled(now: int) -> dict[str, Any]:
    # What had ended before a resend stays as it ended.
    ended = deliveries.c.resume_status.in_([Status.DELIVERED, Status.FAILED])
    return {
        "status": sa.case((ended, deliveries.c.resume_status), else_=int(Status.CANCELLED)),
        "completed_at": sa.func.coalesce(deliveries.c.completed_at, now),
        "failed_reason": _reason_kept(),
    }


def _reason_kept() -> sa.ColumnElement[int]:
    """Why a delivery had failed; a test that was never attempted has no other attempt to hope for."""
    failed = deliveries.c.resume_status == int(Status.FAILED)
    reason = sa.func.coalesce(deliveries.c.failed_reason, int(FailedReason.EXHAUSTED))
    return sa.case((failed, reason), else_=deliveries.c.failed_reason)


def _ended(values: dict[str, Any]) -> dict[str, Any]:
    """The values, with nothing left of an attempt that was to come."""
    return {
        "due_at": None,
        # A test is known for good.
        "trigger": sa.case((deliveries.c.trigger == int(Trigger.TEST), int(Trigger.TEST)), else_=int(Trigger.SCHEDULE)),
        "resume_status": None,
        "resume_due_at": None,
        "replay_seq": None,
        **values,
    }
