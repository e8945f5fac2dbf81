"""What a running replay does: counting what there is, looking ahead, releasing for attempts, each in bites."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries import Status, Trigger
from uplift_server.core.replays import ReplayState
from uplift_server.store.hot_records import LeasedDelivery
from uplift_server.store.replays import Choice, Replay, one
from uplift_server.store.schema import deliveries, events, replays

_OF_EVENT: Final = (events.c.type_seq, events.c.created_at, events.c.expires_at, events.c.body)


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


@dataclass(frozen=True, slots=True)
class Ahead:
    """The events whose deliveries come next, in order; there are no others up to `through`."""

    event_seqs: tuple[int, ...]
    through: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Until when and for whom deliveries are leased, and how many there may be."""

    now: int
    until: int
    owner: int
    limit: int
    outstanding_max: int
    body_bytes_max: int


@dataclass(frozen=True, slots=True)
class Released:
    """What a replay has let go, and how it stands then."""

    replay: Replay
    leased: list[LeasedDelivery]
    outstanding: int
    """How many wait for their attempt or have it."""


def count(connection: Connection, choice: Choice, *, first: int, last: int, rows: int) -> Counted:
    """Count what there is to replay between two events, looking at no more than so many deliveries."""
    through = _window_end(connection, choice, first, last, rows)
    found = connection.execute(
        sa.select(sa.func.count(), sa.func.min(events.c.created_at), sa.func.max(events.c.created_at))
        .select_from(deliveries.join(events, events.c.seq == deliveries.c.event_seq))
        .where(*_chosen(choice, first, through))
    ).one()
    return Counted(found[0], found[1], found[2], through)


def look_ahead(connection: Connection, replay: Replay, *, first: int, rows: int, limit: int) -> Ahead:
    """The next deliveries to replay from an event on, looking at no more than so many."""
    through = _window_end(connection, replay.choice, first, replay.last_event_seq, rows)
    query = (
        sa.select(deliveries.c.event_seq)
        .select_from(deliveries.join(events, events.c.seq == deliveries.c.event_seq))
        .where(*_chosen(replay.choice, first, through))
        .order_by(deliveries.c.event_seq)
        .limit(limit)
    )
    found = tuple(connection.scalars(query))
    return Ahead(found, found[-1] if len(found) == limit else through)


def note_counted(connection: Connection, replay_seq: int, counted: Counted, *, first: int, now: int) -> Replay:
    """Remember that so many more were counted, from the event `first` on."""
    connection.execute(
        sa.update(replays)
        .where(replays.c.seq == replay_seq, replays.c.counted_through == first - 1)
        .values(total=replays.c.total + counted.count, counted_through=counted.through, updated_at=now)
    )
    return one(connection, replays.c.seq == replay_seq)


def release(connection: Connection, replay_seq: int, ahead: Ahead, lease: Lease) -> Released:
    """Lease what a running replay was given back, then what lies ahead, for one attempt each outside their schedules.

    What has changed since it was seen ahead is skipped and counted. Ends the replay once nothing is left.
    """
    replay = one(connection, replays.c.seq == replay_seq, lock=True)
    if replay.state is not ReplayState.RUNNING:
        return Released(replay, [], 0)
    mine = sa.select(deliveries.c.event_seq, deliveries.c.status).where(deliveries.c.replay_seq == replay_seq)
    claimed = connection.execute(mine).all()
    outstanding = sum(row.status == Status.PENDING for row in claimed)
    given_back = sorted(row.event_seq for row in claimed if row.status != Status.PENDING)
    room = max(0, min(lease.limit, lease.outstanding_max - outstanding))
    again = given_back[:room]
    fresh = list(ahead.event_seqs[: room - len(again)])
    leased, looked_at = _lease(connection, replay, [*again, *fresh], lease)
    again, fresh = [seq for seq in again if seq <= looked_at], [seq for seq in fresh if seq <= looked_at]
    taken = {delivery.event_seq for delivery in leased}
    unfit = [seq for seq in again if seq not in taken]
    if unfit:
        connection.execute(
            sa.update(deliveries)
            .where(deliveries.c.replay_seq == replay_seq, deliveries.c.event_seq.in_(unfit))
            .values(replay_seq=None)
        )
    outstanding += len(leased)
    passed = ahead.through if len(fresh) == len(ahead.event_seqs) else max(fresh, default=0)
    next_event_seq = max(replay.next_event_seq, passed + 1)
    skipped = replay.skipped + len(again) + len(fresh) - len(leased)
    in_hand = outstanding + len(given_back) - len(again)
    ended = replay.delivered + replay.failed
    values: dict[str, Any] = {
        "next_event_seq": next_event_seq,
        "skipped": skipped,
        # One that was still being written when they were counted may have come since.
        "total": max(replay.total, ended + skipped + in_hand),
        "updated_at": lease.now,
    }
    if next_event_seq > replay.last_event_seq and in_hand == 0:
        # What was counted and never came ahead has been pruned, or was resent.
        values |= {"state": int(ReplayState.COMPLETED), "completed_at": lease.now, "skipped": values["total"] - ended}
    connection.execute(sa.update(replays).where(replays.c.seq == replay_seq).values(values))
    return Released(one(connection, replays.c.seq == replay_seq), leased, outstanding)


def _lease(
    connection: Connection, replay: Replay, event_seqs: Sequence[int], lease: Lease
) -> tuple[list[LeasedDelivery], int]:
    """Lease those of the deliveries that are still to be replayed; stops after the one that exceeds the bytes.

    Also gives the event up to which they were looked at.
    """
    leased: list[LeasedDelivery] = []
    if not event_seqs:
        return leased, 0
    query = (
        sa.select(deliveries, events.c.id.label("event_id"), *_OF_EVENT)
        .join(events, events.c.seq == deliveries.c.event_seq)
        .where(deliveries.c.endpoint_seq == replay.choice.endpoint_seq, deliveries.c.event_seq.in_(event_seqs))
        .order_by(deliveries.c.event_seq)
        .with_for_update(of=deliveries)
    )
    body_bytes, looked_at = 0, event_seqs[-1]
    was: list[dict[str, int]] = []
    for row in connection.execute(query):
        if not _fit(row, replay.choice, lease.now):
            continue
        leased.append(_leased(row, replay.seq, lease))
        was.append({"event": row.event_seq, "new_fence": row.fence + 1, "was": row.status})
        body_bytes += len(row.body)
        if body_bytes > lease.body_bytes_max:
            looked_at = row.event_seq
            break
    if leased:
        connection.execute(
            sa.update(deliveries)
            .where(
                deliveries.c.event_seq == sa.bindparam("event"),
                deliveries.c.endpoint_seq == replay.choice.endpoint_seq,
            )
            .values(
                status=int(Status.PENDING),
                due_at=lease.until,
                lease_owner=lease.owner,
                fence=sa.bindparam("new_fence"),
                trigger=int(Trigger.REPLAY),
                resume_status=sa.bindparam("was"),
                resume_due_at=None,
                replay_seq=replay.seq,
            ),
            was,
        )
    return leased, looked_at


def _fit(row: sa.Row[Any], choice: Choice, now: int) -> bool:
    """Whether a delivery is still what was chosen: being resent, sent since or expired, it is not."""
    return (
        row.status in choice.statuses
        and row.trigger != Trigger.TEST
        and row.completed_at is not None
        and row.completed_at <= choice.made_at
        and (row.expires_at is None or row.expires_at > now)
    )


def _leased(row: sa.Row[Any], replay_seq: int, lease: Lease) -> LeasedDelivery:
    return LeasedDelivery(
        event_seq=row.event_seq,
        endpoint_seq=row.endpoint_seq,
        # Whatever an attempt of an ended lease still has to say came before this.
        fence=row.fence + 1,
        lease_until=lease.until,
        attempts_made=row.attempts_made,
        scheduled_attempts=row.scheduled_attempts,
        trigger=Trigger.REPLAY,
        event_id=row.event_id,
        type_seq=row.type_seq,
        created_at=row.created_at,
        expires_at=row.expires_at,
        body=row.body,
        resume_status=Status(row.status),
        replay_seq=replay_seq,
    )


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
