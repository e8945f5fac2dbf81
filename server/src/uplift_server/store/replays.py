"""Replays, and the deliveries that each replay selects.

For events that the endpoint never received, a replay can create deliveries. The replay stores such a delivery as failed
and leases it in the same transaction. If the attempt does not succeed, the status of the delivery returns to failed.

A delivery that a replay has released contains the number of the replay until its attempt is counted. If the endpoint or
the replay is paused before the attempt, the delivery returns to its earlier status. Later, the replay releases this
delivery again. Therefore, a replay neither skips nor repeats deliveries, even if a process ends.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.deliveries.replays import ReplayState, can_change_to
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.core.limits import REPLAYS_UNFINISHED_PER_ACCOUNT_MAX
from uplift_server.store import locks
from uplift_server.store.accounts import require
from uplift_server.store.errors import Conflict
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Page
from uplift_server.store.schema import accounts, deliveries, endpoints, replays


class MissingEvents(NamedTuple):
    """The events of an account that have no delivery to the endpoint. The replay creates the missing deliveries.

    A delivery that a replay created but did not attempt also counts as missing.
    """

    account_seq: int
    type_seqs: tuple[int, ...]
    """The numbers of the event types that matched the endpoint's subscription when the replay was created."""


@dataclass(frozen=True, slots=True)
class ReplaySelection:
    """The deliveries that a replay resends, which must have ended at `selected_at` or earlier.

    Timestamps are Unix ms.
    """

    endpoint_seq: int
    statuses: tuple[Status, ...]
    type_seqs: tuple[int, ...]
    """The numbers of the event types. Empty for all types."""
    created_after: int | None
    created_before: int | None
    """Only events with a timestamp between `created_after` and `created_before` (both exclusive) are selected."""
    selected_at: int
    outcomes: tuple[Outcome, ...] = ()
    """The matching outcomes of the last attempt. Empty for all outcomes."""
    status_codes: tuple[tuple[int, int], ...] = ()
    """Inclusive ranges for the last attempt's status code. Empty for all status codes."""
    object_id: str | None = None
    missing: MissingEvents | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """A job that resends deliveries of one endpoint. Timestamps are Unix ms."""

    seq: int
    id: bytes
    account_seq: int
    account_id: bytes
    endpoint_id: bytes
    selection: ReplaySelection
    types: tuple[str, ...]
    """The names and patterns of event types, as in the request that created the replay."""
    rate_per_second: int
    state: ReplayState
    total: int
    """The number of deliveries to resend that have been counted so far."""
    counted_through: int
    next_event_seq: int
    last_event_seq: int
    delivered: int
    failed: int
    skipped: int
    created_at: int
    updated_at: int
    completed_at: int | None
    """The time when the replay ended. None until then."""

    @property
    def is_counted(self) -> bool:
        """Whether all deliveries are counted. After that, only deliveries that were committed late increase `total`."""
        return self.counted_through >= self.last_event_seq


@dataclass(frozen=True, slots=True)
class NewReplay:
    """A replay to store, with its range of event numbers and the number of deliveries counted so far."""

    id: bytes
    account_seq: int
    selection: ReplaySelection
    types: tuple[str, ...]
    rate_per_second: int
    total: int
    counted_through: int
    first_event_seq: int
    last_event_seq: int
    batch_id: bytes | None = None
    """The ID of the bulk resend to which the replay belongs, if any."""


def create(connection: Connection, new: NewReplay) -> Replay:
    """Store a replay in the running state.

    Raises EndpointBusy if the endpoint has an unfinished replay. Raises Conflict if the account was deleted or has too
    many unfinished replays.
    """
    require(connection, new.account_seq)
    unfinished = sa.select(replays.c.id, replays.c.endpoint_seq).where(
        replays.c.account_seq == new.account_seq,
        sa.text("completed_at IS NULL"),
        replays.c.state.in_([ReplayState.RUNNING, ReplayState.PAUSED]),
    )
    others = connection.execute(unfinished).all()
    for other in others:
        if other.endpoint_seq == new.selection.endpoint_seq:
            raise EndpointBusy(other.id)
    if len(others) >= REPLAYS_UNFINISHED_PER_ACCOUNT_MAX:
        text = (
            f"The account has {len(others)} unfinished replays, which is the limit. Cancel one, or wait until one ends."
        )
        raise Conflict(text)
    selection = new.selection
    connection.execute(
        sa.insert(replays).values(
            id=new.id,
            account_seq=new.account_seq,
            endpoint_seq=selection.endpoint_seq,
            statuses=json.dumps([int(status) for status in selection.statuses]),
            types=json.dumps(new.types),
            type_seqs=json.dumps(selection.type_seqs),
            created_after=selection.created_after,
            created_before=selection.created_before,
            rate_per_second=new.rate_per_second,
            state=int(ReplayState.RUNNING),
            total=new.total,
            counted_through=new.counted_through,
            next_event_seq=new.first_event_seq,
            last_event_seq=new.last_event_seq,
            created_at=selection.selected_at,
            updated_at=selection.selected_at,
            outcomes=json.dumps(selection.outcomes) if selection.outcomes else None,
            status_codes=json.dumps(selection.status_codes) if selection.status_codes else None,
            object_id=selection.object_id,
            batch_id=new.batch_id,
            missing_type_seqs=None if selection.missing is None else json.dumps(selection.missing.type_seqs),
        )
    )
    return one(connection, replays.c.id == new.id)


class EndpointBusy(Conflict):
    """The endpoint already has an unfinished replay. `replay_id` is its ID."""

    def __init__(self, replay_id: bytes) -> None:
        super().__init__("The endpoint already has an unfinished replay. Cancel it, or wait until it ends.")
        self.replay_id = replay_id


def get(connection: Connection, account_seq: int | None, replay_id: bytes) -> Replay | None:
    """Return the replay with this ID in an account, or in any account if `account_seq` is None."""
    query = _details().where(replays.c.id == replay_id)
    if account_seq is not None:
        query = query.where(replays.c.account_seq == account_seq)
    row = connection.execute(query).first()
    return None if row is None else _replay(row)


def page(connection: Connection, account_seq: int | None, request: PageRequest) -> Page[Replay]:
    """List a page of replays for an account, or for all accounts if `account_seq` is None."""
    keys = request.of(sa.select(replays.c.seq), replays.c.seq)
    if account_seq is not None:
        keys = keys.where(replays.c.account_seq == account_seq)
    query = _details().where(replays.c.seq.in_(keys)).order_by(request.ordered(replays.c.seq))
    return request.page([_replay(row) for row in connection.execute(query)], lambda replay: (replay.seq,))


def unfinished(connection: Connection, *, after: tuple[int, int] = (0, 0), limit: int = 500) -> list[Replay]:
    """List replays that are not completed, sorted by account number and replay number.

    Include cancelled replays that still have leased deliveries. `after` contains both numbers of the last replay on the
    previous page.
    """
    keys = (
        sa.select(replays.c.seq)
        .where(
            sa.text("completed_at IS NULL"),
            sa.tuple_(replays.c.account_seq, replays.c.seq) > sa.tuple_(*map(sa.literal, after)),
        )
        .order_by(replays.c.account_seq, replays.c.seq)
        .limit(limit)
    )
    query = _details().where(replays.c.seq.in_(keys)).order_by(replays.c.account_seq, replays.c.seq)
    return [_replay(row) for row in connection.execute(query)]


def of_batch(connection: Connection, account_seq: int, batch_id: bytes) -> list[Replay]:
    """List the replays of a bulk resend, newest first."""
    own = (replays.c.account_seq == account_seq, replays.c.batch_id == batch_id)
    return [_replay(row) for row in connection.execute(_details().where(*own).order_by(replays.c.seq.desc()))]


def busy_endpoints(connection: Connection, account_seq: int) -> set[int]:
    """Return the numbers of the account's endpoints that have an unfinished replay."""
    query = sa.select(replays.c.endpoint_seq).where(
        replays.c.account_seq == account_seq,
        sa.text("completed_at IS NULL"),
        replays.c.state.in_([ReplayState.RUNNING, ReplayState.PAUSED]),
    )
    return set(connection.scalars(query))


def find(connection: Connection, seqs: Collection[int]) -> list[Replay]:
    """Return the existing replays with these numbers, in any order."""
    return [_replay(row) for row in connection.execute(_details().where(replays.c.seq.in_(seqs)))]


def change_state(
    connection: Connection, account_seq: int | None, replay_id: bytes, wanted: ReplayState, *, now: int
) -> tuple[Replay, bool] | None:
    """Pause, resume or cancel a replay.

    Return the replay, and whether its state changed. Return None if the replay does not exist. After a pause or
    cancellation, waiting deliveries return to their earlier status, but leased deliveries stay leased. Raises Conflict
    if the replay has ended.
    """
    found = get(connection, account_seq, replay_id)
    if found is None:
        return None
    locks.take_order(connection, [found.selection.endpoint_seq])
    found = one(connection, replays.c.seq == found.seq, lock=True)
    if not can_change_to(found.state, wanted):
        raise Conflict(f"The replay is {found.state.text}, so you cannot change it. Create a new replay.")
    if found.state is wanted:
        return found, False
    connection.execute(sa.update(replays).where(replays.c.seq == found.seq).values(state=int(wanted), updated_at=now))
    if wanted is ReplayState.PAUSED:
        return_unattempted(connection, found.seq)
    elif wanted is ReplayState.CANCELLED:
        finish_cancelled(connection, found.seq, now=now)
    return one(connection, replays.c.seq == found.seq), True


def return_unattempted(connection: Connection, replay_seq: int) -> bool:
    """Return a replay's waiting deliveries to their earlier status. The replay can release them again later.

    Return whether the replay still has leased deliveries.
    """
    endpoint_seq = sa.select(replays.c.endpoint_seq).where(replays.c.seq == replay_seq)
    locks.take_order(connection, [connection.scalars(endpoint_seq).one()])
    own = (deliveries.c.replay_seq == replay_seq, deliveries.c.status == int(Status.PENDING))
    connection.execute(
        sa.update(deliveries)
        .where(*own, deliveries.c.lease_owner == 0)
        .values(
            status=deliveries.c.resume_status,
            due_at=deliveries.c.resume_due_at,
            trigger=int(Trigger.SCHEDULE),
            resume_status=None,
            resume_due_at=None,
        )
    )
    return connection.execute(sa.select(deliveries.c.event_seq).where(*own).limit(1)).first() is not None


def finish_cancelled(connection: Connection, replay_seq: int, *, now: int) -> Replay:
    """Remove all unleased deliveries from a cancelled replay. Complete the replay if no delivery is leased."""
    leased = return_unattempted(connection, replay_seq)
    connection.execute(
        sa.update(deliveries)
        .where(deliveries.c.replay_seq == replay_seq, deliveries.c.status != int(Status.PENDING))
        .values(replay_seq=None)
    )
    if not leased:
        connection.execute(
            sa.update(replays)
            .where(replays.c.seq == replay_seq, replays.c.completed_at.is_(None))
            .values(completed_at=now, updated_at=now)
        )
    return one(connection, replays.c.seq == replay_seq)


def _details() -> sa.Select[Any]:
    return (
        sa.select(replays, endpoints.c.id.label("endpoint_id"), accounts.c.id.label("account_id"))
        .join(endpoints, endpoints.c.seq == replays.c.endpoint_seq)
        .join(accounts, accounts.c.seq == replays.c.account_seq)
    )


def one(connection: Connection, which: sa.ColumnElement[bool], *, lock: bool = False) -> Replay:
    """Return the replay that meets the condition. The replay must exist. With `lock`, lock its row for an update."""
    query = _details().where(which)
    return _replay(connection.execute(query.with_for_update(of=replays) if lock else query).one())


_PLAIN: Final = (
    "seq", "id", "account_seq", "account_id", "endpoint_id", "rate_per_second", "total", "counted_through",
    "next_event_seq", "last_event_seq", "delivered", "failed", "skipped", "created_at", "updated_at", "completed_at",
)  # fmt: skip


def _replay(row: sa.Row[Any]) -> Replay:
    return Replay(
        **{name: getattr(row, name) for name in _PLAIN},
        selection=ReplaySelection(
            endpoint_seq=row.endpoint_seq,
            statuses=tuple(Status(number) for number in json.loads(row.statuses)),
            type_seqs=tuple(json.loads(row.type_seqs)),
            created_after=row.created_after,
            created_before=row.created_before,
            selected_at=row.created_at,
            outcomes=tuple(Outcome(number) for number in json.loads(row.outcomes or "[]")),
            status_codes=tuple((low, high) for low, high in json.loads(row.status_codes or "[]")),
            object_id=row.object_id,
            missing=None
            if row.missing_type_seqs is None
            else MissingEvents(row.account_seq, tuple(json.loads(row.missing_type_seqs))),
        ),
        types=tuple(json.loads(row.types)),
        state=ReplayState(row.state),
    )
