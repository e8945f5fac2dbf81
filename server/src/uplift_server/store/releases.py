"""Functions that both database engines use to run replays.

The functions count deliveries, convert rows to candidates, and calculate the progress of replays.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.ordering import order_group
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.store.delivery_search import responded
from uplift_server.store.hot_records import Candidate, LeasedDelivery, ReplayBatch, ReplayLease
from uplift_server.store.replays import MissingEvents, Replay, ReplaySelection, one
from uplift_server.store.schema import attempts, deliveries, events, replays


@dataclass(frozen=True, slots=True)
class ReplayCount:
    """The number of deliveries to replay, and their oldest and newest event timestamps (Unix ms).

    The count ends at the event number `through`.
    """

    count: int
    oldest_at: int | None
    newest_at: int | None
    through: int
    missing: int = 0
    """The number of deliveries in `count` that do not exist yet. The replay creates these deliveries."""

    def then(self, more: "ReplayCount") -> "ReplayCount":
        """Return the total of this count and of `more`, the count of the next window."""
        oldest = [at for at in (self.oldest_at, more.oldest_at) if at is not None]
        newest = [at for at in (self.newest_at, more.newest_at) if at is not None]
        return ReplayCount(
            self.count + more.count,
            min(oldest, default=None),
            max(newest, default=None),
            more.through,
            self.missing + more.missing,
        )


def count(connection: Connection, choice: ReplaySelection, *, first: int, last: int, rows: int) -> ReplayCount:
    """Count the deliveries to replay, starting at the event number `first`.

    The count ends at the event number `last`, or earlier, after `rows` deliveries of the endpoint. If the replay
    includes events without a delivery to the endpoint, the limit is `rows` events of the account instead.
    """
    through = _window_end(connection, choice, first, last, rows)
    if choice.missing is not None:
        return _count_with_missing(connection, choice, choice.missing, first, through)
    found = connection.execute(
        sa.select(sa.func.count(), sa.func.min(events.c.created_at), sa.func.max(events.c.created_at))
        .select_from(deliveries.join(events, events.c.seq == deliveries.c.event_seq))
        .where(*_chosen(choice, first, through))
    ).one()
    return ReplayCount(found[0], found[1], found[2], through)


def _count_with_missing(
    connection: Connection, choice: ReplaySelection, missing: MissingEvents, first: int, through: int
) -> ReplayCount:
    own = (deliveries.c.event_seq == events.c.seq, deliveries.c.endpoint_seq == choice.endpoint_seq)
    is_missing = sa.and_(
        events.c.type_seq.in_(missing.type_seqs),
        sa.not_(_any(deliveries, *own)),
        sa.not_(_any(deliveries, deliveries.c.event_seq == events.c.seq, deliveries.c.trigger == int(Trigger.TEST))),
        # An event with an attempt is not missing: retention deletes a delivery before its attempts.
        sa.not_(_any(attempts, attempts.c.event_seq == events.c.seq, attempts.c.endpoint_seq == choice.endpoint_seq)),
    )
    is_unattempted = sa.and_(deliveries.c.status == int(Status.FAILED), deliveries.c.attempts_made == 0)
    is_ended = sa.and_(deliveries.c.status.in_(choice.statuses), deliveries.c.completed_at <= choice.selected_at)
    is_replayable = _any(deliveries, *own, deliveries.c.trigger != int(Trigger.TEST), sa.or_(is_ended, is_unattempted))
    found = connection.execute(
        sa.select(
            sa.func.count(),
            sa.func.min(events.c.created_at),
            sa.func.max(events.c.created_at),
            sa.func.coalesce(sa.func.sum(sa.case((is_missing, 1), else_=0)), 0),
        ).where(
            events.c.account_seq == missing.account_seq,
            events.c.seq.between(first, through),
            *_of_events(choice),
            sa.or_(is_missing, is_replayable),
        )
    ).one()
    return ReplayCount(found[0], found[1], found[2], through, found[3])


def _any(table: sa.Table, *where: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return a condition that is true if a row in the table meets all conditions in `where`.

    Because of the OFFSET clause, PostgreSQL searches an index for each event instead of reading the whole table once.
    """
    return sa.select(sa.literal(1)).select_from(table).where(*where).offset(0).correlate_except(table).exists()


def save_count(connection: Connection, replay_seq: int, counted: ReplayCount, *, first: int, now: int) -> Replay:
    """Add the count for the window that starts at the event number `first` to a replay's total.

    If the window is already counted, change nothing.
    """
    connection.execute(
        sa.update(replays)
        .where(replays.c.seq == replay_seq, replays.c.counted_through == first - 1)
        .values(total=replays.c.total + counted.count, counted_through=counted.through, updated_at=now)
    )
    return one(connection, replays.c.seq == replay_seq)


class CandidateRow(NamedTuple):
    """A delivery that a replay can lease, as the statements of both engines return it."""

    event_seq: int
    endpoint_seq: int
    fence: int
    attempts_made: int
    scheduled_attempts: int
    status: int
    completed_at: int | None
    event_id: bytes
    type_seq: int
    created_at: int
    expires_at: int | None
    body: bytes
    order_group: int | None
    ordering_key: str | None


def candidates(rows: Iterable[CandidateRow], body_bytes_max: int) -> tuple[list[Candidate], bool]:
    """Convert rows to candidates until the total size of their bodies exceeds `body_bytes_max`.

    Also return whether the total size exceeds this limit. If it does, the last candidate is the one that exceeds it.
    """
    found: list[Candidate] = []
    body_bytes = 0
    for row in rows:
        delivery = LeasedDelivery(
            event_seq=row.event_seq,
            endpoint_seq=row.endpoint_seq,
            # The new fence invalidates a late outcome of the previous lease.
            fence=row.fence + 1,
            lease_until=0,
            attempts_made=row.attempts_made,
            scheduled_attempts=row.scheduled_attempts,
            trigger=Trigger.REPLAY,
            event_id=row.event_id,
            type_seq=row.type_seq,
            created_at=row.created_at,
            expires_at=row.expires_at,
            body=row.body,
            resume_status=Status(row.status),
            order_group=row.order_group,
        )
        found.append(Candidate(delivery, row.completed_at, row.ordering_key))
        body_bytes += len(row.body)
        if body_bytes > body_bytes_max:
            return found, True
    return found, False


class ReplayProgress(NamedTuple):
    """The progress of a replay: the counts of its deliveries, and the number of the next event."""

    state: int
    total: int
    next_event_seq: int
    last_event_seq: int
    delivered: int
    failed: int
    skipped: int
    outstanding: int
    returned: Sequence[int]
    """The event numbers of deliveries that were returned to the replay without an attempt, in ascending order."""

    def after(self, batch: ReplayBatch, *, again: int, fresh: int, leased: int) -> "ReplayProgress":
        """Return the progress after the replay has processed more deliveries.

        `again` is the number of processed deliveries that the replay leased earlier and that were returned without an
        attempt. `fresh` is the number of candidates processed from the start of `batch`. `leased` is the number of
        processed deliveries that the replay has leased now. The replay skipped the other processed deliveries.
        """
        outstanding = self.outstanding + leased
        next_event_seq = self.next_event_seq
        if fresh == len(batch.candidates):
            next_event_seq = max(next_event_seq, batch.through + 1)
        elif fresh:
            next_event_seq = max(next_event_seq, batch.candidates[fresh - 1].delivery.event_seq + 1)
        state, skipped = self.state, self.skipped + again + fresh - leased
        unfinished = outstanding + len(self.returned) - again
        # A delivery that was committed after the count can raise the total.
        total = max(self.total, self.delivered + self.failed + skipped + unfinished)
        if next_event_seq > self.last_event_seq and unfinished == 0:
            state = ReplayState.COMPLETED
            # Also report as skipped the counted deliveries that the replay did not find: they were deleted or resent.
            skipped = total - self.delivered - self.failed
        return self._replace(
            state=state, total=total, next_event_seq=next_event_seq, skipped=skipped, outstanding=outstanding
        )


def unexpired(candidates: Iterable[Candidate], lease: ReplayLease) -> list[Candidate]:
    """Return the candidates that the replay may still send.

    Omit deliveries of expired events, and missing deliveries of events that retention will soon delete. Set the order
    group of the other missing deliveries.
    """
    found = [
        each
        for each in candidates
        if (each.delivery.expires_at is None or each.delivery.expires_at > lease.now)
        and (each.completed_at is not None or each.delivery.created_at > lease.missing_after)
    ]
    for delivery, completed_at, ordering_key in found:
        if completed_at is None:
            delivery.order_group = order_group(lease.ordering, ordering_key)
    return found


def leased(candidates: Iterable[Candidate], replay_seq: int, lease: ReplayLease) -> list[LeasedDelivery]:
    """Return the deliveries of these candidates, marked as leased by the replay."""
    deliveries_leased = []
    for delivery, _, _ in candidates:
        delivery.lease_until = lease.until
        delivery.replay_seq = replay_seq
        deliveries_leased.append(delivery)
    return deliveries_leased


def _chosen(choice: ReplaySelection, first: int, last: int) -> list[sa.ColumnElement[bool]]:
    conditions = [
        deliveries.c.endpoint_seq == choice.endpoint_seq,
        deliveries.c.event_seq.between(first, last),
        deliveries.c.status.in_(choice.statuses),
        deliveries.c.trigger != int(Trigger.TEST),
        deliveries.c.completed_at <= choice.selected_at,
        *_of_events(choice),
    ]
    if choice.object_id is not None:
        conditions.append(events.c.object_id == choice.object_id)
    if choice.outcomes:
        conditions.append(deliveries.c.last_outcome.in_(choice.outcomes))
    if choice.status_codes:
        conditions.append(responded(choice.status_codes))
    return conditions


def _of_events(choice: ReplaySelection) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [
        sa.or_(events.c.expires_at.is_(None), events.c.expires_at > choice.selected_at)
    ]
    if choice.type_seqs:
        conditions.append(events.c.type_seq.in_(choice.type_seqs))
    if choice.created_after is not None:
        conditions.append(events.c.created_at > choice.created_after)
    if choice.created_before is not None:
        conditions.append(events.c.created_at < choice.created_before)
    return conditions


def _window_end(connection: Connection, choice: ReplaySelection, first: int, last: int, rows: int) -> int:
    """Return the number of the last event in a window that starts at the event number `first`.

    The window ends at the event number `last`, or earlier, after `rows` deliveries of the endpoint. If the replay
    includes events without a delivery to the endpoint, the limit is `rows` events of the account instead.
    """
    seq, own = deliveries.c.event_seq, deliveries.c.endpoint_seq == choice.endpoint_seq
    if choice.missing is not None:
        seq, own = events.c.seq, events.c.account_seq == choice.missing.account_seq
    query = sa.select(seq).where(own, seq.between(first, last)).order_by(seq).offset(rows - 1).limit(1)
    found = connection.scalars(query).first()
    return last if found is None else found
