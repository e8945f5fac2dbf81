"""What a running replay reads beside what lies ahead: how much there is, in bites, and what it was given back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.store.hot_records import Ahead, Candidate, LeasedDelivery
from uplift_server.store.replays import Choice, Replay, one
from uplift_server.store.schema import deliveries, events, replays

# In the order in which `candidates` takes them.
_OF_DELIVERY: Final = (
    deliveries.c.event_seq,
    deliveries.c.endpoint_seq,
    deliveries.c.fence,
    deliveries.c.attempts_made,
    deliveries.c.scheduled_attempts,
    deliveries.c.status,
    deliveries.c.completed_at,
)
_OF_EVENT: Final = (events.c.id, events.c.type_seq, events.c.created_at, events.c.expires_at, events.c.body)


@dataclass(frozen=True, slots=True)
class Counted:
    """How many deliveries there are to replay up to the event `through`, and of when the oldest and newest are."""

    count: int
    oldest_at: int | None
    newest_at: int | None
    through: int

    def then(self, more: "Counted") -> "Counted":
        """This and what was counted after it."""
        oldest = [at for at in (self.oldest_at, more.oldest_at) if at is not None]
        newest = [at for at in (self.newest_at, more.newest_at) if at is not None]
        return Counted(self.count + more.count, min(oldest, default=None), max(newest, default=None), more.through)


def count(connection: Connection, choice: Choice, *, first: int, last: int, rows: int) -> Counted:
    """Count what there is to replay between two events, looking at no more than so many deliveries."""
    through = _window_end(connection, choice, first, last, rows)
    found = connection.execute(
        sa.select(sa.func.count(), sa.func.min(events.c.created_at), sa.func.max(events.c.created_at))
        .select_from(deliveries.join(events, events.c.seq == deliveries.c.event_seq))
        .where(*_chosen(choice, first, through))
    ).one()
    return Counted(found[0], found[1], found[2], through)


def note_counted(connection: Connection, replay_seq: int, counted: Counted, *, first: int, now: int) -> Replay:
    """Remember that so many more were counted, from the event `first` on."""
    connection.execute(
        sa.update(replays)
        .where(replays.c.seq == replay_seq, replays.c.counted_through == first - 1)
        .values(total=replays.c.total + counted.count, counted_through=counted.through, updated_at=now)
    )
    return one(connection, replays.c.seq == replay_seq)


def again(
    connection: Connection, choice: Choice, event_seqs: Sequence[int], *, body_bytes_max: int
) -> tuple[list[Candidate], int]:
    """Those of the deliveries that are still to be replayed, as far as their bodies fit, and up to which it looked."""
    query = (
        sa.select(*_OF_DELIVERY, *_OF_EVENT)
        .join_from(deliveries, events, events.c.seq == deliveries.c.event_seq)
        .where(*_chosen(choice, event_seqs[0], event_seqs[-1]), deliveries.c.event_seq.in_(event_seqs))
        .order_by(deliveries.c.event_seq)
    )
    found, cut = candidates(connection.execute(query), body_bytes_max)
    return found, found[-1].delivery.event_seq if cut else event_seqs[-1]


def candidates(rows: Iterable[Iterable[Any]], body_bytes_max: int) -> tuple[list[Candidate], bool]:
    """The first of what was read, up to the one whose body exceeds the bytes, and whether one does.

    A row is an event, endpoint, fence, attempts made, scheduled ones, status and instant of completion, then the
    event's id, type, instants of creation and expiry, and body.
    """
    found: list[Candidate] = []
    body_bytes = 0
    for row in rows:
        event, endpoint, fence, made, scheduled, status, completed_at, *of_event = row
        event_id, type_seq, created_at, expires_at, body = of_event
        delivery = LeasedDelivery(
            event_seq=event,
            endpoint_seq=endpoint,
            # Whatever an attempt of an ended lease still has to say came before this.
            fence=fence + 1,
            lease_until=0,
            attempts_made=made,
            scheduled_attempts=scheduled,
            trigger=Trigger.REPLAY,
            event_id=event_id,
            type_seq=type_seq,
            created_at=created_at,
            expires_at=expires_at,
            body=body,
            resume_status=Status(status),
        )
        found.append(Candidate(delivery, completed_at))
        body_bytes += len(body)
        if body_bytes > body_bytes_max:
            return found, True
    return found, False


class Standing(NamedTuple):
    """How a running replay stands, whatever database it is in."""

    state: int
    total: int
    next_event_seq: int
    last_event_seq: int
    delivered: int
    failed: int
    skipped: int
    outstanding: int
    given_back: Sequence[int]
    """The events of what it released once and has back, in their order."""

    def after(self, ahead: Ahead, *, again: int, fresh: int, leased: int) -> "Standing":
        """How it stands once so many of what was given back, and of what lies ahead, were looked at and leased."""
        outstanding = self.outstanding + leased
        next_event_seq = self.next_event_seq
        if fresh == len(ahead.candidates):
            next_event_seq = max(next_event_seq, ahead.through + 1)
        elif fresh:
            next_event_seq = max(next_event_seq, ahead.candidates[fresh - 1].delivery.event_seq + 1)
        state, skipped = self.state, self.skipped + again + fresh - leased
        in_hand = outstanding + len(self.given_back) - again
        # One that was still being written when they were counted may have come since.
        total = max(self.total, self.delivered + self.failed + skipped + in_hand)
        if next_event_seq > self.last_event_seq and in_hand == 0:
            state = ReplayState.COMPLETED
            # What was counted and never came ahead has been pruned, or was resent.
            skipped = total - self.delivered - self.failed
        return self._replace(
            state=state, total=total, next_event_seq=next_event_seq, skipped=skipped, outstanding=outstanding
        )


def unexpired(candidates: Iterable[Candidate], now: int) -> list[Candidate]:
    """Those that may still be sent at an instant (Unix ms)."""
    return [each for each in candidates if each.delivery.expires_at is None or each.delivery.expires_at > now]


def _chosen(choice: Choice, first: int, last: int) -> list[sa.ColumnElement[bool]]:
    conditions = [
        deliveries.c.endpoint_seq == choice.endpoint_seq,
        deliveries.c.event_seq.between(first, last),
        deliveries.c.status.in_(choice.statuses),
        deliveries.c.trigger != int(Trigger.TEST),
        deliveries.c.completed_at <= choice.made_at,
        sa.or_(events.c.expires_at.is_(None), events.c.expires_at > choice.made_at),
    ]
    if choice.type_seqs:
        conditions.append(events.c.type_seq.in_(choice.type_seqs))
    if choice.created_after is not None:
        conditions.append(events.c.created_at > choice.created_after)
    if choice.created_before is not None:
        conditions.append(events.c.created_at < choice.created_before)
    return conditions


def _window_end(connection: Connection, choice: Choice, first: int, last: int, rows: int) -> int:
    """The event at which so many of the endpoint's deliveries have been looked at."""
    query = (
        sa.select(deliveries.c.event_seq)
        .where(deliveries.c.endpoint_seq == choice.endpoint_seq, deliveries.c.event_seq.between(first, last))
        .order_by(deliveries.c.event_seq)
        .offset(rows - 1)
        .limit(1)
    )
    found = connection.scalars(query).first()
    return last if found is None else found
