"""Retention: what is removed once it is old, in which order, and how a bite of it is found and removed.

A bite has two steps. `look` goes on through what is old, on a reader, and finds what nothing needs any more; `remove`
deletes just that. So traffic waits for deletions alone, and for nothing at all while there is nothing to delete.

The newest row of every numbered table stays, however old: SQLite numbers the next one after it, and no number is ever
given twice. Events, cursors and what is held in memory go by numbers.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.lifecycle import Status
from uplift_server.core.operations.statistics import HOUR_MS
from uplift_server.store.schema import (
    accounts,
    api_keys,
    attempts,
    audit_log,
    deliveries,
    endpoints,
    event_types,
    events,
    idempotency_keys,
    idempotent_creates,
    marks,
    notices,
    replays,
)
from uplift_server.store.schema_partitions import chosen_event_ids
from uplift_server.store.schema_people import invitations, links, sessions
from uplift_server.store.schema_statistics import rollups
from uplift_server.store.schema_traces import trace_parents
from uplift_server.store.statistics import ATTEMPTS_MARK, EVENTS_MARK

Key = tuple[Any, ...]
"""The values of a row's primary key."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The rows of a table that are kept for a time."""

    table: sa.Table
    since: sa.Column[int]
    """From when on their time counts (Unix ms). Rows without it are in use."""
    lasts_ms: int = 0
    """How much later than that their time counts."""
    goes_by_number: bool = False
    """Whether they are gone through in the order of their numbers, which grow with time; else an index leads to the
    oldest."""
    only: tuple[sa.ColumnElement[bool], ...] = ()
    """Which of them, and which of them alone an index leads to."""
    needed: tuple[sa.ColumnElement[bool], ...] = ()
    """What keeps one that is old. Asked again in the transaction that removes it: it may have come about meanwhile."""
    referred_to: tuple[sa.ColumnElement[bool], ...] = ()
    """What keeps one that is old, and cannot come about any more: nothing new refers to what has long been deleted."""
    parts: tuple[sa.Column[int], ...] = ()
    """What goes with a row, by the columns that hold its number."""
    bite: int = 50
    """How many are looked at, and removed at most, at a time. Measured on a file with a million rows of each kind and
    two million events: removing 40 events holds the writer for 7 ms, 50 rows of another kind for 1 to 6 ms."""

    @property
    def name(self) -> str:
        """The table's."""
        return self.table.name

    @property
    def may_stay(self) -> bool:
        """Whether something can keep one that is old."""
        return bool(self.needed or self.referred_to)

    @property
    def key(self) -> tuple[sa.Column[Any], ...]:
        """The primary key."""
        return tuple(self.table.primary_key)

    @property
    def order(self) -> tuple[sa.Column[Any], ...]:
        """In which order they are gone through."""
        return self.key if self.goes_by_number else tuple(dict.fromkeys((self.since, *self.key)))

    @property
    def kept_for(self) -> list[sa.ColumnElement[bool]]:
        """`needed`, and being the newest."""
        if "seq" not in self.table.c:
            return list(self.needed)
        newest = sa.select(sa.func.max(self.table.alias("newest").c.seq)).scalar_subquery()
        return [self.table.c.seq >= newest, *self.needed]


def _any(*where: sa.ColumnElement[bool], of: sa.Table) -> sa.ColumnElement[bool]:
    """Whether there is such a row, looked for by an index for each row of a bite.

    With the offset PostgreSQL cannot do what it otherwise prefers: to read all rows there are once, for each bite.
    """
    return sa.select(sa.literal(1)).select_from(of).where(*where).offset(0).correlate_except(of).exists()


def _refers(column: sa.Column[int], to: sa.Column[int]) -> sa.ColumnElement[bool]:
    assert isinstance(column.table, sa.Table)
    return _any(column == to, of=column.table)


_OPEN: Final = _any(
    deliveries.c.event_seq == events.c.seq,
    sa.or_(deliveries.c.status == int(Status.PENDING), deliveries.c.status == int(Status.HELD)),
    of=deliveries,
)


def _mark(name: str) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.select(marks.c.value).where(marks.c.name == name).scalar_subquery(), 0)


_UNCOUNTED: Final = events.c.seq > _mark(EVENTS_MARK)
# The last attempt that was counted stays, too: the next one is numbered after it, and so is counted.
_ATTEMPT_UNCOUNTED: Final = _any(
    attempts.c.event_seq == events.c.seq, attempts.c.seq >= _mark(ATTEMPTS_MARK), of=attempts
)
# By all accounts, since no index leads from a type to its events; such an index would cost every event something. With
# a million accounts that takes a reader a third of a second: one type a bite.
_ACCOUNT_HAS_EVENTS: Final = _any(
    events.c.account_seq == accounts.c.seq, events.c.type_seq == event_types.c.seq, of=events
)
_TYPE_HAS_EVENTS: Final = _any(_ACCOUNT_HAS_EVENTS, of=accounts)

EVENTS: Final = Kept(
    events,
    events.c.created_at,
    goes_by_number=True,
    needed=(_OPEN, _UNCOUNTED, _ATTEMPT_UNCOUNTED),
    parts=(
        attempts.c.event_seq,
        deliveries.c.event_seq,
        trace_parents.c.event_seq,
        chosen_event_ids.c.event_seq,
    ),
    bite=40,
)

KEPT: Final = (
    # Before events: a key that outlived its event could neither be answered nor be used again.
    Kept(idempotency_keys, idempotency_keys.c.created_at),
    Kept(idempotent_creates, idempotent_creates.c.created_at),
    EVENTS,
    Kept(rollups, rollups.c.at, lasts_ms=HOUR_MS),
    Kept(audit_log, audit_log.c.at),
    Kept(notices, notices.c.created_at, only=(notices.c.due_at.is_(None),)),
    Kept(sessions, sessions.c.ends_at),
    Kept(links, links.c.expires_at),
    Kept(invitations, invitations.c.expires_at),
    # From here on after whatever refers to it.
    Kept(replays, replays.c.completed_at, referred_to=(_refers(deliveries.c.replay_seq, replays.c.seq),)),
    Kept(
        endpoints,
        endpoints.c.deleted_at,
        referred_to=tuple(
            _refers(column, endpoints.c.seq) for column in (deliveries.c.endpoint_seq, replays.c.endpoint_seq)
        ),
    ),
    Kept(event_types, event_types.c.deleted_at, referred_to=(_TYPE_HAS_EVENTS,), bite=1),
    Kept(api_keys, api_keys.c.revoked_at),
    Kept(
        accounts,
        accounts.c.deleted_at,
        referred_to=tuple(
            _refers(table.c.account_seq, accounts.c.seq)
            for table in (events, endpoints, api_keys, replays, audit_log, idempotency_keys, idempotent_creates)
        ),
    ),
)
"""Everything that is removed, in this order."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at some old rows found."""

    doomed: list[Key]
    """Those that nothing needs any more."""
    place: tuple[Any, ...] | None
    """Where to go on; None where there was nothing old at all."""
    more: bool
    """Whether there may be something old behind it."""


def look(connection: Connection, kept: Kept, *, before: int, after: tuple[Any, ...] | None) -> Seen:
    """Look at a bite of rows older than an instant (Unix ms), from a place on."""
    before -= kept.lasts_ms
    columns = tuple(dict.fromkeys((*kept.order, kept.since)))
    stays = sa.or_(sa.false(), *kept.kept_for, *kept.referred_to).label("stays")
    query = sa.select(*columns, stays).where(*kept.only).order_by(*kept.order).limit(kept.bite)
    if not kept.goes_by_number:
        query = query.where(kept.since < before)
    if after is not None:
        query = query.where(sa.tuple_(*kept.order) > sa.tuple_(*map(sa.literal, after)))
    old = [row for row in connection.execute(query).mappings() if row[kept.since] < before]
    if not old:
        return Seen([], after, more=False)
    doomed = [tuple(row[column] for column in kept.key) for row in old if not row["stays"]]
    return Seen(doomed, tuple(old[-1][column] for column in kept.order), more=len(old) == kept.bite)


def remove(connection: Connection, kept: Kept, keys: Sequence[Key], *, before: int) -> int:
    """Delete those of these rows that are still older than an instant and needed by nothing; how many."""
    conditions = [kept.since < before - kept.lasts_ms, *map(sa.not_, kept.kept_for)]
    if kept.parts:
        (number,) = kept.key
        if connection.dialect.name == "postgresql":
            # A replay may lease one of its deliveries just now. Nothing changes any more once this has them.
            asked = sa.select(deliveries.c.event_seq).where(deliveries.c.event_seq.in_([key[0] for key in keys]))
            connection.execute(asked.order_by(*deliveries.primary_key.columns).with_for_update())
        still = sa.select(number).where(number.in_([key[0] for key in keys]), *conditions)
        doomed = list(connection.scalars(still))
        keys = [(seq,) for seq in doomed]
        for column in kept.parts:
            connection.execute(sa.delete(column.table).where(column.in_(doomed)))
    if not keys:
        return 0
    if not connection.dialect.supports_sane_multi_rowcount:
        these = sa.or_(*(sa.and_(*map(operator.eq, kept.key, key)) for key in keys))
        return connection.execute(sa.delete(kept.table).where(these, *conditions)).rowcount
    # Row by row: for a key of two columns and a list of them, SQLite would go through the whole table.
    own = [column == sa.bindparam(f"key_{place}") for place, column in enumerate(kept.key)]
    rows = [{f"key_{place}": value for place, value in enumerate(key)} for key in keys]
    return connection.execute(sa.delete(kept.table).where(*own, *conditions), rows).rowcount
