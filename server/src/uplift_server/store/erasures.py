"""Erasures: jobs that erase the events about an object, or the events with given IDs.

A completed job remains as a receipt. A job about an object first searches the object ID index. Then it reads the bodies
of the account's events without a stored object ID, because early releases did not store object IDs.
`store.erased_content` erases the events.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.ids import ERASURE, prefixed
from uplift_server.core.limits import ERASURES_UNFINISHED_PER_ACCOUNT_MAX
from uplift_server.core.people.audit import SYSTEM, AuditEntry
from uplift_server.store import audit, event_objects
from uplift_server.store.errors import Conflict
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Page
from uplift_server.store.schema import accounts, deliveries, events
from uplift_server.store.schema_erasures import erasures

UNFINISHED_READ_MAX: Final = 10_000
"""Maximum number of unfinished erasures among which the server chooses the next ones."""
EVENTS_PER_STEP: Final = 40
"""Maximum number of events that one step erases. A step is one transaction."""
DELIVERIES_PER_STEP: Final = 200
"""Number of deliveries after which a step ends. A step can exceed it, because it never splits an event's deliveries."""
BODIES_PER_STEP: Final = 50
WINDOW_EVENTS: Final = 5_000
"""Maximum number of events that one step scans to find those without an object ID."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure with its selection of events and its progress. Timestamps are Unix ms."""

    seq: int
    id: bytes
    account_seq: int
    account_id: bytes
    object_id: str | None = field(repr=False)
    """The object whose events are erased.

    None for an erasure of events by ID, and after the object ID itself is erased.
    """
    object_digest: str | None
    event_seqs: tuple[int, ...] | None
    missing: int
    position: int
    scanned_through: int
    last_event_seq: int
    events: int
    leases_until: int | None
    tidied_at: int | None
    created_at: int
    completed_at: int | None

    @property
    def has_events_left(self) -> bool:
        """Whether the job has not yet searched all of its events."""
        return self.tidied_at is None and min(self.position, self.scanned_through) < self.last_event_seq


@dataclass(frozen=True, slots=True)
class NewErasure:
    """An erasure to store.

    It erases the events in `event_seqs`, or all events about an object up to `last_event_seq`.
    """

    id: bytes
    account_seq: int
    created_at: int
    last_event_seq: int
    object_id: str | None = field(default=None, repr=False)
    object_digest: str | None = None
    event_seqs: tuple[int, ...] | None = None
    missing: int = 0


class Found(NamedTuple):
    """The number of events that an erasure would erase, and their oldest and newest timestamps (Unix ms)."""

    events: int = 0
    oldest_at: int | None = None
    newest_at: int | None = None

    def plus(self, more: "Found") -> "Found":
        """Return the combined result: the total number of events, and the oldest and newest timestamps."""
        oldest = [at for at in (self.oldest_at, more.oldest_at) if at is not None]
        newest = [at for at in (self.newest_at, more.newest_at) if at is not None]
        return Found(self.events + more.events, min(oldest, default=None), max(newest, default=None))


class Step(NamedTuple):
    """One step of an erasure: the events to erase or check, and the erasure's progress after the step."""

    event_seqs: Sequence[int]
    unchecked: Sequence[tuple[int, bytes]]
    """Numbers and bodies of events without a stored object ID. The caller must look for the object ID in each body."""
    position: int
    scanned_through: int


def create(connection: Connection, new: NewErasure) -> Erasure:
    """Store an erasure, even for a deleted account.

    Raises Conflict if the account has too many unfinished erasures.
    """
    # Lock the account, so that the count below stays valid.
    connection.execute(sa.select(accounts.c.seq).where(accounts.c.seq == new.account_seq).with_for_update())
    own = (erasures.c.account_seq == new.account_seq, sa.text(_UNFINISHED))
    running = connection.scalar(sa.select(sa.func.count()).select_from(erasures).where(*own)) or 0
    if running >= ERASURES_UNFINISHED_PER_ACCOUNT_MAX:
        raise Conflict(f"The account has {running} running erasures, which is the limit. Wait until one is completed.")
    connection.execute(
        sa.insert(erasures).values(
            id=new.id,
            account_seq=new.account_seq,
            object_id=new.object_id,
            object_digest=new.object_digest,
            event_seqs=None if new.event_seqs is None else json.dumps(new.event_seqs),
            missing=new.missing,
            position=0,
            scanned_through=0 if new.event_seqs is None else new.last_event_seq,
            last_event_seq=new.last_event_seq,
            created_at=new.created_at,
        )
    )
    return _one(connection, erasures.c.id == new.id)


def get(connection: Connection, account_seq: int, erasure_id: bytes) -> Erasure | None:
    """Return the account's erasure with this ID."""
    own = (erasures.c.account_seq == account_seq, erasures.c.id == erasure_id)
    row = connection.execute(_DETAILS.where(*own)).first()
    return None if row is None else _erasure(row)


def page(connection: Connection, account_seq: int, request: PageRequest) -> Page[Erasure]:
    """List a page of the account's erasures."""
    query = request.of(_DETAILS.where(erasures.c.account_seq == account_seq), erasures.c.seq)
    return request.page([_erasure(row) for row in connection.execute(query)], lambda erasure: (erasure.seq,))


def unfinished(connection: Connection, *, limit: int) -> list[Erasure]:
    """List the erasures that are not completed: first the oldest of each account, then the second oldest, and so on."""
    before: Counter[int] = Counter()
    ranked = []
    for row in connection.execute(_UNFINISHED_KEYS):
        ranked.append((before[row.account_seq], row.seq))
        before[row.account_seq] += 1
    order = {seq: place for place, (_, seq) in enumerate(sorted(ranked)[:limit])}
    found = connection.execute(_DETAILS.where(erasures.c.seq.in_(order)))
    return sorted(map(_erasure, found), key=lambda each: order[each.seq])


def find_seqs(connection: Connection, account_seq: int, event_ids: Sequence[bytes]) -> dict[bytes, int]:
    """Return the numbers of the account's events with these IDs, keyed by ID."""
    query = sa.select(events.c.id, events.c.seq).where(events.c.id.in_(event_ids), events.c.account_seq == account_seq)
    return {row.id: row.seq for row in connection.execute(query)}


def newest_seq(connection: Connection) -> int:
    """Return the highest event number across all accounts, or 0 if there are no events."""
    return connection.scalar(sa.select(sa.func.max(events.c.seq))) or 0


def count(connection: Connection, account_seq: int, event_seqs: Sequence[int]) -> Found:
    """Count the account's events with these numbers, excluding erased events."""
    return _count(connection, [events.c.account_seq == account_seq, events.c.seq.in_(event_seqs)])


def count_about(connection: Connection, account_seq: int, object_id: str, *, last: int) -> tuple[Found, int]:
    """Count up to CANDIDATES_MAX events about an object, from the event number `last` downward.

    Return the count, and the value of `last` for the next call, or 0 if no events are left.
    """
    found = event_objects.candidates(connection, account_seq, object_id, 0, last)
    conditions = [*event_objects.matching(object_id, found), events.c.account_seq == account_seq]
    is_full = len(found) == event_objects.CANDIDATES_MAX
    return _count(connection, conditions), found[-1] - 1 if is_full else 0


def next_step(connection: Connection, erasure: Erasure) -> Step:
    """Find the events that the next step of an erasure erases or checks."""
    if erasure.event_seqs is not None:
        left = [seq for seq in erasure.event_seqs if seq > erasure.position]
        return _cut(connection, erasure, left, erasure.last_event_seq)
    if erasure.position < erasure.last_event_seq:
        assert erasure.object_id is not None, "the object ID is erased after the last event"
        first, last = erasure.position + 1, erasure.last_event_seq
        found = event_objects.candidates(
            connection, erasure.account_seq, erasure.object_id, first, last, newest_first=False
        )
        own = (*event_objects.matching(erasure.object_id, found), events.c.account_seq == erasure.account_seq)
        query = sa.select(events.c.seq).where(*own, events.c.erased_at.is_(None)).order_by(events.c.seq)
        through = found[-1] if len(found) == event_objects.CANDIDATES_MAX else last
        return _cut(connection, erasure, list(connection.scalars(query)), through)
    return _next_unchecked(connection, erasure)


def complete(connection: Connection, erasure: Erasure, *, now: int) -> Erasure:
    """Mark an erasure as completed, and add an audit log entry, unless the erasure was already completed."""
    change = sa.update(erasures).where(erasures.c.seq == erasure.seq, erasures.c.completed_at.is_(None))
    completed = connection.execute(change.values(completed_at=now)).rowcount
    found = _one(connection, erasures.c.seq == erasure.seq)
    if completed:
        details = {"events": found.events}
        entry = AuditEntry(found.account_seq, now, SYSTEM, "erasure.completed", prefixed(ERASURE, found.id), details)
        audit.add(connection, entry)
    return found


def _cut(connection: Connection, erasure: Erasure, seqs: Sequence[int], through: int) -> Step:
    """Return a step that erases as many of these events as the limits of a step allow.

    `through` is the last event number that the search for these events covered.
    """
    chosen = seqs[:EVENTS_PER_STEP]
    query = sa.select(deliveries.c.event_seq, sa.func.count()).where(deliveries.c.event_seq.in_(chosen))
    counts = {row[0]: row[1] for row in connection.execute(query.group_by(deliveries.c.event_seq))}
    total = 0
    for number, seq in enumerate(chosen, 1):
        total += counts.get(seq, 0)
        if total > DELIVERIES_PER_STEP:
            chosen = chosen[:number]
            break
    position = through if len(chosen) == len(seqs) else chosen[-1]
    return Step(chosen, (), position, erasure.scanned_through)


def _next_unchecked(connection: Connection, erasure: Erasure) -> Step:
    own = (
        events.c.account_seq == erasure.account_seq,
        events.c.seq > erasure.scanned_through,
        events.c.seq <= erasure.last_event_seq,
    )
    end = sa.select(events.c.seq).where(*own).order_by(events.c.seq).offset(WINDOW_EVENTS - 1).limit(1)
    through = connection.scalars(end).first() or erasure.last_event_seq
    query = (
        sa.select(events.c.seq, events.c.body)
        .where(*own, events.c.seq <= through, events.c.object_id.is_(None), events.c.erased_at.is_(None))
        .order_by(events.c.seq)
        .limit(BODIES_PER_STEP)
    )
    rows = [(row.seq, row.body) for row in connection.execute(query)]
    if len(rows) == BODIES_PER_STEP:
        through = rows[-1][0]
    return Step((), rows, erasure.position, through)


def _count(connection: Connection, conditions: Sequence[sa.ColumnElement[bool]]) -> Found:
    created_at = events.c.created_at
    query = sa.select(sa.func.count(), sa.func.min(created_at), sa.func.max(created_at)).select_from(events)
    return Found(*connection.execute(query.where(*conditions, events.c.erased_at.is_(None))).one())


_UNFINISHED: Final = "completed_at IS NULL"
_PLAIN: Final = tuple(name for name in Erasure.__slots__ if name not in {"account_id", "event_seqs"})


_DETAILS: Final = sa.select(erasures, accounts.c.id.label("account_id")).join(
    accounts, accounts.c.seq == erasures.c.account_seq
)
_UNFINISHED_KEYS: Final = (
    sa.select(erasures.c.seq, erasures.c.account_seq)
    .where(sa.text(_UNFINISHED))
    .order_by(erasures.c.seq)
    .limit(UNFINISHED_READ_MAX)
)


def _one(connection: Connection, which: sa.ColumnElement[bool]) -> Erasure:
    return _erasure(connection.execute(_DETAILS.where(which)).one())


def _erasure(row: sa.Row[Any]) -> Erasure:
    return Erasure(
        account_id=row.account_id,
        event_seqs=None if row.event_seqs is None else tuple(json.loads(row.event_seqs)),
        **{name: getattr(row, name) for name in _PLAIN},
    )
