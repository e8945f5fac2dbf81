"""Retention rules, and the deletion of expired rows in batches.

`find_expired` only reads, and `delete_expired` only deletes a batch that was found. Therefore, other writes do not wait
for the search. If a table has a column `seq`, retention never deletes the newest row, because SQLite derives the next
number from it. Events, cursors and caches rely on unique numbers.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.lifecycle import Status
from uplift_server.core.operations.statistics import HOUR_MS
from uplift_server.store import event_objects
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
    service_keys,
)
from uplift_server.store.schema_erasures import erasures
from uplift_server.store.schema_partitions import chosen_event_ids
from uplift_server.store.schema_people import invitations, links, sessions
from uplift_server.store.schema_rejected_events import rejected_events
from uplift_server.store.schema_statistics import rollups
from uplift_server.store.schema_traces import trace_parents
from uplift_server.store.statistics import ATTEMPTS_COUNTED, EVENTS_COUNTED

Key = tuple[Any, ...]
"""The values of a row's primary key."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """A rule for the rows of a table: when they expire, and how many rows retention deletes in one batch."""

    table: sa.Table
    since: sa.Column[int]
    """The column with the start of the retention period (Unix ms). NULL while the row is in use."""
    extra_ms: int = 0
    """The additional time that rows are kept after the retention period, in ms."""
    is_ordered_by_seq: bool = False
    """Whether the rule reads rows in the order of their numbers, which increase with time.

    If false, the rule reads rows in the order of `since`.
    """
    only: tuple[sa.ColumnElement[bool], ...] = ()
    """Conditions that select the rows to which the rule applies. A partial index has the same conditions."""
    kept_while: tuple[sa.ColumnElement[bool], ...] = ()
    """Conditions under which retention keeps an expired row.

    These conditions can become true after `find_expired`, so `delete_expired` checks them again.
    """
    kept_while_referenced: tuple[sa.ColumnElement[bool], ...] = ()
    """Conditions under which retention keeps an expired row because other rows refer to it.

    These conditions cannot become true after `find_expired`, because no new row refers to a deleted object.
    """
    children: tuple[sa.Column[int], ...] = ()
    """The columns of other tables that refer to a row.

    Retention deletes the row together with the rows that refer to it.
    """
    batch_rows: int = 50
    """The maximum number of rows that one batch reads and deletes.

    On SQLite, with a million rows in each table and two million events, deleting 40 events blocks the writer for 7 ms,
    and deleting 50 rows of another table blocks it for 1 to 6 ms.
    """

    @property
    def name(self) -> str:
        """The table name."""
        return self.table.name

    @property
    def can_be_kept(self) -> bool:
        """Whether the rule has a condition under which an expired row is kept."""
        return bool(self.kept_while or self.kept_while_referenced)

    @property
    def key(self) -> tuple[sa.Column[Any], ...]:
        """The primary key columns of the rule's table."""
        return tuple(self.table.primary_key)

    @property
    def order(self) -> tuple[sa.Column[Any], ...]:
        """The columns that define the order in which rows are read."""
        return self.key if self.is_ordered_by_seq else tuple(dict.fromkeys((self.since, *self.key)))

    @property
    def blockers(self) -> list[sa.ColumnElement[bool]]:
        """The conditions under which retention keeps a row, except `kept_while_referenced`.

        If the table has a column `seq`, one of the conditions keeps the newest row. `delete_expired` checks these
        conditions again.
        """
        if "seq" not in self.table.c:
            return list(self.kept_while)
        newest = sa.select(sa.func.max(self.table.alias("newest").c.seq)).scalar_subquery()
        return [self.table.c.seq >= newest, *self.kept_while]


def _any(*where: sa.ColumnElement[bool], of: sa.Table) -> sa.ColumnElement[bool]:
    """Return a condition that is true if a row in the table `of` meets all conditions in `where`.

    The OFFSET clause makes PostgreSQL search an index for each row of a batch instead of reading the whole table once.
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


_UNCOUNTED: Final = events.c.seq > _mark(EVENTS_COUNTED)
# Keep the last attempt that the statistics counted, so that the next attempt gets a higher number and is counted.
_ATTEMPT_UNCOUNTED: Final = _any(
    attempts.c.event_seq == events.c.seq, attempts.c.seq >= _mark(ATTEMPTS_COUNTED), of=attempts
)
# Search the events account by account, because an index that begins with the event type would slow down every insert.
# With a million accounts, the search takes 0.3 seconds. Therefore, each batch deletes only one event type.
_ACCOUNT_HAS_EVENTS: Final = _any(
    events.c.account_seq == accounts.c.seq, events.c.type_seq == event_types.c.seq, of=events
)
_TYPE_HAS_EVENTS: Final = _any(_ACCOUNT_HAS_EVENTS, of=accounts)

EVENTS: Final = RetentionRule(
    events,
    events.c.created_at,
    is_ordered_by_seq=True,
    kept_while=(_OPEN, _UNCOUNTED, _ATTEMPT_UNCOUNTED),
    children=(
        attempts.c.event_seq,
        deliveries.c.event_seq,
        trace_parents.c.event_seq,
        chosen_event_ids.c.event_seq,
    ),
    batch_rows=40,
)

RETENTION_RULES: Final = (
    # Delete keys before events: a key without its event could not be resolved or reused.
    RetentionRule(idempotency_keys, idempotency_keys.c.created_at),
    RetentionRule(idempotent_creates, idempotent_creates.c.created_at),
    EVENTS,
    RetentionRule(rollups, rollups.c.at, extra_ms=HOUR_MS),
    RetentionRule(audit_log, audit_log.c.at),
    RetentionRule(rejected_events, rejected_events.c.rejected_at),
    # Keep erasure receipts while their account exists.
    RetentionRule(
        erasures,
        erasures.c.completed_at,
        kept_while_referenced=(
            _any(accounts.c.seq == erasures.c.account_seq, accounts.c.deleted_at.is_(None), of=accounts),
        ),
    ),
    RetentionRule(notices, notices.c.created_at, only=(notices.c.due_at.is_(None),)),
    RetentionRule(sessions, sessions.c.ends_at),
    RetentionRule(links, links.c.expires_at),
    RetentionRule(invitations, invitations.c.expires_at),
    # Each of the following rules runs after the rules for the tables that refer to its table.
    RetentionRule(
        replays, replays.c.completed_at, kept_while_referenced=(_refers(deliveries.c.replay_seq, replays.c.seq),)
    ),
    RetentionRule(
        endpoints,
        endpoints.c.deleted_at,
        kept_while_referenced=tuple(
            _refers(column, endpoints.c.seq) for column in (deliveries.c.endpoint_seq, replays.c.endpoint_seq)
        ),
    ),
    RetentionRule(event_types, event_types.c.deleted_at, kept_while_referenced=(_TYPE_HAS_EVENTS,), batch_rows=1),
    RetentionRule(api_keys, api_keys.c.revoked_at),
    RetentionRule(service_keys, service_keys.c.revoked_at),
    RetentionRule(
        accounts,
        accounts.c.deleted_at,
        kept_while_referenced=tuple(
            _refers(table.c.account_seq, accounts.c.seq)
            for table in (
                events,
                endpoints,
                api_keys,
                replays,
                audit_log,
                erasures,
                rejected_events,
                idempotency_keys,
                idempotent_creates,
            )
        ),
    ),
)
"""All rules, in the order in which retention applies them."""


@dataclass(frozen=True, slots=True)
class ExpiredRows:
    """A batch of expired rows."""

    keys: list[Key]
    """The primary keys of the rows to delete."""
    position: tuple[Any, ...] | None
    """The position after which the next batch starts, in the rule's order. None if no row has expired yet."""
    has_more: bool
    """Whether there may be more expired rows."""


def find_expired(
    connection: Connection, rule: RetentionRule, *, before: int, after: tuple[Any, ...] | None
) -> ExpiredRows:
    """Find the next batch of expired rows, after the position `after`.

    A row is expired if its retention period began before `before` (Unix ms). Omit rows that must be kept.
    """
    before -= rule.extra_ms
    columns = tuple(dict.fromkeys((*rule.order, rule.since)))
    is_kept = sa.or_(sa.false(), *rule.blockers, *rule.kept_while_referenced).label("is_kept")
    query = sa.select(*columns, is_kept).where(*rule.only).order_by(*rule.order).limit(rule.batch_rows)
    if not rule.is_ordered_by_seq:
        query = query.where(rule.since < before)
    if after is not None:
        query = query.where(sa.tuple_(*rule.order) > sa.tuple_(*map(sa.literal, after)))
    old = [row for row in connection.execute(query).mappings() if row[rule.since] < before]
    if not old:
        return ExpiredRows([], after, has_more=False)
    expired = [tuple(row[column] for column in rule.key) for row in old if not row["is_kept"]]
    return ExpiredRows(expired, tuple(old[-1][column] for column in rule.order), has_more=len(old) == rule.batch_rows)


def delete_expired(connection: Connection, rule: RetentionRule, keys: Sequence[Key], *, before: int) -> int:
    """Delete the rows with these keys, except rows that are no longer expired or that must be kept.

    `before` is the same time as in `find_expired`. Return the number of deleted rows.
    """
    conditions = [rule.since < before - rule.extra_ms, *map(sa.not_, rule.blockers)]
    if rule.children:
        (number,) = rule.key
        if connection.dialect.name == "postgresql":
            # Lock the deliveries, because a replay may be about to lease one of them.
            locked = sa.select(deliveries.c.event_seq).where(deliveries.c.event_seq.in_([key[0] for key in keys]))
            connection.execute(locked.order_by(*deliveries.primary_key.columns).with_for_update())
        still = sa.select(number).where(number.in_([key[0] for key in keys]), *conditions)
        expired = list(connection.scalars(still))
        keys = [(seq,) for seq in expired]
        event_objects.delete(connection, expired)
        for column in rule.children:
            connection.execute(sa.delete(column.table).where(column.in_(expired)))
    if not keys:
        return 0
    if not connection.dialect.supports_sane_multi_rowcount:
        these = sa.or_(*(sa.and_(*map(operator.eq, rule.key, key)) for key in keys))
        return connection.execute(sa.delete(rule.table).where(these, *conditions)).rowcount
    # Delete row by row, because SQLite would scan the whole table for a list of two-column keys.
    own = [column == sa.bindparam(f"key_{place}") for place, column in enumerate(rule.key)]
    rows = [{f"key_{place}": value for place, value in enumerate(key)} for key in keys]
    return connection.execute(sa.delete(rule.table).where(*own, *conditions), rows).rowcount
