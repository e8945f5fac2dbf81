"""Statistics: one row per scope for each hour and each minute, and the number of open deliveries for each endpoint.

Each count updates the statistics with the rows that were stored since the previous count. The count reads three tables
in batches: deliveries, attempts, and the status changes in `delivery_changes`. It reads each table up to the stream
position, in row number order.

A count first reads all attempts and changes up to the stream position, and then the deliveries. It counts each delivery
once, with its current status. From then on, attempts and changes of the delivery move it from one status to another in
the counts. Attempts and changes of a delivery that is not counted yet are ignored, because its current status already
includes them. The current status can also result from an attempt or change beyond the stream position. A later batch
counts this attempt or change, so the current count subtracts its effect. A delivery that a replay creates for a past
event is counted by its row in `delivery_changes`.

One process counts at a time. `save` writes a batch in one transaction, and only if the stored positions are the same as
when the batch was read. Therefore, nothing is counted twice or left out after a crash.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import add
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.operations.statistics import (
    COUNT_FIELDS,
    HOUR_MS,
    MINUTE_MS,
    Statistics,
    parse_sparse,
)
from uplift_server.store import server_values
from uplift_server.store import statistics_statements as sql
from uplift_server.store.schema import attempts, deliveries, events
from uplift_server.store.schema_statistics import delivery_changes, delivery_totals
from uplift_server.store.stream_position import STREAM_POSITION_MAX, StreamPosition
from uplift_server.store.tallies import NewRows, RowKey, Tally, add_to, summed

PREFIX: Final = "numbers."
EVENTS_COUNTED: Final = f"{PREFIX}events"
"""The name of the server value that contains the number of the last event whose deliveries are counted."""
ATTEMPTS_COUNTED: Final = f"{PREFIX}attempts"
"""The name of the server value that contains the number of the last counted attempt."""
_BEGAN: Final = f"{PREFIX}began"
"""The name of the server value that contains the number of the last event before the statistics began.

This event and all earlier events are never counted.
"""
BATCHES_COUNTED: Final = f"{PREFIX}turn"
"""The name of the server value that contains the number of batches that were counted so far.

The number also increases when a copy replaces a partition, so that a batch in progress becomes invalid.
"""
TOTALS_COUNTED: Final = f"{PREFIX}totals"
"""The name of the server value that is 1 while `delivery_totals` is exact.

An earlier release deletes this value with its first batch.
"""
VALUES: Final = (EVENTS_COUNTED, ATTEMPTS_COUNTED, _BEGAN, BATCHES_COUNTED, TOTALS_COUNTED)
_NO_END: Final = 2**62
MINUTES_KEPT_MS: Final = 90 * MINUTE_MS
"""How long the server keeps statistics by minute, in ms. The longest period with statistics by minute is 1 hour."""
MINUTE_ROWS_DELETED_MAX: Final = 5_000
"""The maximum number of expired minute rows that one batch deletes."""


class Scope(NamedTuple):
    """The scope of statistics: an endpoint, an account (`endpoint_seq` is 0), or all accounts (both fields are 0).

    If `endpoint_seq` is negative, the scope is an event type, and `-endpoint_seq` is the number of the event type. The
    statistics of an event type cover only deliveries, and only by hour.
    """

    account_seq: int
    endpoint_seq: int

    @classmethod
    def of_type(cls, account_seq: int, type_seq: int) -> "Scope":
        """Return the scope of an event type in an account. Use the account number 0 for all accounts."""
        return cls(account_seq, -type_seq)


ALL_ACCOUNTS: Final = Scope(0, 0)


_Totals = Sequence[tuple[int, int, int]]
"""For each endpoint, its number, the number of pending deliveries, and the number of held deliveries."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A counted batch: the rows to write, and the positions where the next batch starts."""

    hours: NewRows
    minutes: NewRows
    totals: _Totals
    """The numbers to add to the rows of `delivery_totals`.

    If the stored rows are not exact, `totals` contains the new content of all rows instead.
    """
    minutes_from: int
    """The time (Unix ms) of the first minute to keep. `save` deletes rows of earlier minutes."""
    positions: Mapping[str, int]
    """The server values `VALUES` when the batch was counted. If they have changed, `save` writes nothing."""
    next_positions: Mapping[str, int]
    changes_through: int
    """The number of the last counted status change. `save` deletes the changes up to this number."""
    more: bool
    """Whether more rows are left to count."""

    def encode(self, rows: int) -> bool:
        """Encode up to `rows` more rows for `save`. Return whether rows are left to encode."""
        return self.hours.encode(rows) or self.minutes.encode(rows)


def by_bucket(
    connection: Connection, scopes: Iterable[Scope], *, since: int, until: int = _NO_END, minutes: bool = False
) -> dict[Scope, list[tuple[int, Statistics]]]:
    """Return the statistics of each scope for each hour, or for each minute if `minutes` is set.

    The range is from `since` (inclusive) to `until` (exclusive), in Unix ms. Each item contains the start of the hour
    or minute (Unix ms), and its statistics.
    """
    found: dict[Scope, list[tuple[int, Statistics]]] = {scope: [] for scope in scopes}
    statement = (sql.MINUTES if minutes else sql.HOURS).between[connection.dialect.name]
    for row in connection.execute(statement, {"scopes": json.dumps(list(found)), "since": since, "until": until}):
        found[Scope(row.account_seq, row.endpoint_seq)].append((row.at, _numbers(row)))
    return found


def sums(connection: Connection, scopes: Collection[Scope], *, since: int, until: int) -> dict[Scope, Statistics]:
    """Return the total counts for each scope, from `since` (inclusive) to `until` (exclusive), in Unix ms.

    The result has no outcomes and no durations. Scopes without statistics are omitted.
    """
    values = {"scopes": json.dumps(list(scopes)), "since": since, "until": until}
    return {
        Scope(account_seq, endpoint_seq): Statistics(*counts)
        for account_seq, endpoint_seq, *counts in connection.execute(sql.SUMS[connection.dialect.name], values)
    }


def count(
    connection: Connection, stream_position: StreamPosition, *, now: int, rows: int, changes: int
) -> Counted | None:
    """Count a batch of new rows up to the stream position, without any writes. `save` writes the result.

    The batch contains up to about `rows` deliveries and attempts, and up to `changes` status changes. `now` is in
    Unix ms. Return None if there is nothing to count.
    """
    stored = server_values.get(connection, VALUES)
    batch = _batch(connection, stored, stream_position, rows=rows, changes=changes)
    if batch is None:
        return None
    own, by_type = _tallied(connection, batch)
    minutes_from = now - MINUTES_KEPT_MS
    is_exact = TOTALS_COUNTED in stored
    return Counted(
        hours=_new_rows(connection, sql.HOURS, {**_with_sums(_by_hour(own)), **_with_all_accounts(_by_hour(by_type))}),
        minutes=_new_rows(
            connection, sql.MINUTES, _with_sums({key: tally for key, tally in own.items() if key.at >= minutes_from})
        ),
        totals=_changes_of_totals(own) if is_exact else _recounted_totals(connection, batch),
        minutes_from=minutes_from,
        positions=stored,
        next_positions={
            EVENTS_COUNTED: batch.events_through,
            ATTEMPTS_COUNTED: batch.attempts_through,
            _BEGAN: batch.began,
            BATCHES_COUNTED: stored.get(BATCHES_COUNTED, 0) + 1,
            TOTALS_COUNTED: 1,
        },
        changes_through=batch.changes_through,
        more=batch.more,
    )


def save(connection: Connection, counted: Counted) -> bool:
    """Write a counted batch of statistics.

    Return False without any changes if another batch was written after this batch was counted.
    """
    server_values.lock(connection, PREFIX)
    if server_values.get(connection, VALUES) != counted.positions:
        return False
    server_values.replace(connection, PREFIX, counted.next_positions)
    connection.execute(sa.delete(delivery_changes).where(delivery_changes.c.seq <= counted.changes_through))
    if TOTALS_COUNTED not in counted.positions:
        connection.execute(sa.delete(delivery_totals))
    # Use one statement for all rows: the driver releases the interpreter lock between statements, and then waits for it
    # while the event loop is busy.
    for statements, rows in (
        (sql.HOURS.put, counted.hours.json()),
        (sql.MINUTES.put, counted.minutes.json()),
        (sql.ADD_TOTALS, json.dumps(counted.totals) if counted.totals else None),
    ):
        if rows is not None:
            connection.execute(statements[connection.dialect.name], {"rows": rows})
    connection.execute(sql.DELETE_ZERO_TOTALS)
    connection.execute(sql.DELETE_MINUTES, {"before": counted.minutes_from, "limit": MINUTE_ROWS_DELETED_MAX})
    return True


# ---- batches


@dataclass(frozen=True, slots=True)
class _Batch:
    """The ranges of event, attempt and change numbers that a batch counts."""

    began: int
    events_after: int
    events_through: int
    attempts_after: int
    attempts_through: int
    changes_after: int
    changes_through: int
    more: bool
    has_later: bool
    """Whether attempts or changes exist beyond the stream position."""


_NEWEST: Final = tuple(sa.select(sa.func.max(table.c.seq)) for table in (events, attempts, delivery_changes))


def _batch(
    connection: Connection, stored: Mapping[str, int], stream_position: StreamPosition, *, rows: int, changes: int
) -> _Batch | None:
    events_after, attempts_after = stored.get(EVENTS_COUNTED, 0), stored.get(ATTEMPTS_COUNTED, 0)
    if stream_position.events < events_after or stream_position.attempts < attempts_after:
        # The stream position is behind the position of the last count. Counting now would count rows again.
        return None
    newest = [connection.scalar(query) or 0 for query in _NEWEST]
    last_event, last_attempt, last_change = map(min, newest, stream_position)
    nothing_new = not last_change and (last_event, last_attempt) == (events_after, attempts_after)
    if nothing_new and TOTALS_COUNTED in stored:
        return None
    attempts_through = min(last_attempt, attempts_after + rows)
    changes_through = min(last_change, _nth(connection, delivery_changes.c.seq, 0, changes) or last_change)
    events_through = events_after
    if is_complete := (attempts_through, changes_through) == (last_attempt, last_change):
        events_through = min(last_event, _nth(connection, deliveries.c.event_seq, events_after, rows) or last_event)
    return _Batch(
        began=stored.get(_BEGAN, 0),
        events_after=events_after,
        events_through=events_through,
        attempts_after=attempts_after,
        attempts_through=attempts_through,
        changes_after=0,
        changes_through=changes_through,
        more=not is_complete or events_through < last_event,
        has_later=is_complete and (last_attempt, last_change) != tuple(newest[1:]),
    )


def _nth(connection: Connection, column: sa.Column[int], after: int, count: int) -> int | None:
    """Return the `count`th value in a column after the value `after`, or None if there are fewer values."""
    query = sa.select(column).where(column > after).order_by(column).offset(count - 1).limit(1)
    return connection.scalars(query).first()


# ---- counting


_COUNTED_AS: Final[dict[Status, int]] = {
    status: COUNT_FIELDS.index(status.text) for status in Status if status is not Status.PENDING
}
"""The index of each status in the counts.

Pending has no index: the number of pending deliveries is the difference between all deliveries and the other counts.
"""
_DELIVERIES_OF, _ATTEMPTS_OF, _FIRST_OF, _FIRST_DELIVERED_OF = map(
    COUNT_FIELDS.index, ("deliveries", "attempts", "first_attempts", "first_delivered")
)


def _tallied(connection: Connection, batch: _Batch) -> tuple[dict[RowKey, Tally], dict[RowKey, Tally]]:
    """Return a tally for each endpoint and minute in a batch, and a tally for each event type and minute."""
    own: defaultdict[RowKey, Tally] = defaultdict(Tally)
    by_type: defaultdict[RowKey, Tally] = defaultdict(Tally)
    span = asdict(batch)
    for minute, account, endpoint, event_type, status, n in sql.read_rows(connection, sql.COUNT_DELIVERIES, span):
        at = minute * MINUTE_MS
        for counts in (own[RowKey(account, endpoint, at)].counts, by_type[RowKey(account, -event_type, at)].counts):
            counts[_DELIVERIES_OF] += n
            if status in _COUNTED_AS:
                counts[_COUNTED_AS[status]] += n
    for minute, account, endpoint, outcome, n, first, durations in sql.read_rows(connection, sql.COUNT_ATTEMPTS, span):
        tally = own[RowKey(account, endpoint, minute * MINUTE_MS)]
        tally.counts[_ATTEMPTS_OF] += n
        tally.counts[_FIRST_OF] += first
        if outcome == Outcome.DELIVERED:
            tally.counts[_FIRST_DELIVERED_OF] += first
        tally.outcomes[outcome] = n
        add_to(tally.durations, parse_sparse(durations))
    for key, event_type, n in _created(connection, span):
        for tally in _of(own, by_type, key, event_type):
            tally.counts[_DELIVERIES_OF] += n
    for key, event_type, status, n in _moves(connection, span):
        for tally in _of(own, by_type, key, event_type):
            tally.moves[_COUNTED_AS[status]] += n
    if batch.has_later:
        _subtract(connection, _beyond(batch, batch.events_after), own, by_type)
    return own, by_type


def _subtract(
    connection: Connection, span: Mapping[str, int], own: dict[RowKey, Tally], by_type: dict[RowKey, Tally]
) -> None:
    """Subtract from the tallies the effect of the attempts and changes that a later batch counts.

    `span` is the range of these attempts and changes.
    """
    for key, event_type, n in _created(connection, span):
        for tally in _of(own, by_type, key, event_type):
            tally.counts[_DELIVERIES_OF] -= n
    for key, event_type, status, n in _moves(connection, span):
        for tally in _of(own, by_type, key, event_type):
            tally.counts[_COUNTED_AS[status]] -= n


def _of(own: dict[RowKey, Tally], by_type: dict[RowKey, Tally], key: RowKey, event_type: int | None) -> Sequence[Tally]:
    """Return the tally of an endpoint. If the event type is known, also return the tally of the event type."""
    return [own[key]] if event_type is None else [own[key], by_type[key._replace(endpoint_seq=-event_type)]]


def _beyond(batch: _Batch, began: int) -> Mapping[str, int]:
    """Return the query parameters that select the attempts and changes after the batch.

    The parameters select only attempts and changes of deliveries whose events are after `began`, up to the last event
    of the batch.
    """
    return {
        "began": began,
        "events_after": batch.events_through,
        "attempts_after": batch.attempts_through,
        "attempts_through": STREAM_POSITION_MAX.attempts,
        "changes_after": batch.changes_through,
        "changes_through": STREAM_POSITION_MAX.changes,
    }


def _created(connection: Connection, span: Mapping[str, int]) -> Iterator[tuple[RowKey, int | None, int]]:
    """Yield counts of the deliveries that replays created, from the status changes that `span` selects.

    Each item contains an endpoint and minute, an event type (None if unknown), and the number of deliveries. Only the
    deliveries of events after `span["began"]` and up to `span["events_after"]` are included.
    """
    for minute, account, endpoint, event_type, n in sql.read_rows(connection, sql.COUNT_CREATED, span):
        yield RowKey(account, endpoint, minute * MINUTE_MS), event_type, n


def _moves(connection: Connection, span: Mapping[str, int]) -> Iterator[tuple[RowKey, int | None, Status, int]]:
    """Yield the changes to the counts by status that result from the attempts and status changes that `span` selects.

    Each item contains an endpoint and minute, an event type (None if unknown), a status, and the number to add to its
    count. Only the deliveries of events after `span["began"]` and up to `span["events_after"]` are included.
    """
    for minute, account, endpoint, event_type, n in sql.read_rows(connection, sql.COUNT_DELIVERED, span):
        yield RowKey(account, endpoint, minute * MINUTE_MS), event_type, Status.DELIVERED, n
    for minute, account, endpoint, event_type, old, new, n in sql.read_rows(connection, sql.COUNT_CHANGES, span):
        for status, change in ((old, -n), (new, n)):
            if status in _COUNTED_AS:
                yield RowKey(account, endpoint, minute * MINUTE_MS), event_type, status, change


def _by_hour(own: Mapping[RowKey, Tally]) -> dict[RowKey, Tally]:
    return summed(
        (RowKey(account, endpoint, at - at % HOUR_MS), tally) for (account, endpoint, at), tally in own.items()
    )


def _with_sums(own: Mapping[RowKey, Tally]) -> dict[RowKey, Tally]:
    """Add a total for each account, and one for all accounts, to the endpoint tallies."""
    accounts = summed((RowKey(account, 0, at), tally) for (account, _, at), tally in own.items())
    everything = summed((RowKey(0, 0, at), tally) for (_, _, at), tally in accounts.items())
    return {**own, **accounts, **everything}


def _with_all_accounts(by_type: Mapping[RowKey, Tally]) -> dict[RowKey, Tally]:
    """Add each event type's total across all accounts to the event type tallies."""
    return {**by_type, **summed((RowKey(0, negative, at), tally) for (_, negative, at), tally in by_type.items())}


# ---- open deliveries


def _changes_of_totals(own: Mapping[RowKey, Tally]) -> _Totals:
    """Return the changes to each endpoint's counts of pending and held deliveries."""
    pending: Counter[int] = Counter()
    held: Counter[int] = Counter()
    for key, tally in own.items():
        counts = [*map(add, tally.counts, tally.moves)]
        pending[key.endpoint_seq] += counts[_DELIVERIES_OF] - sum(counts[place] for place in _COUNTED_AS.values())
        held[key.endpoint_seq] += counts[_COUNTED_AS[Status.HELD]]
    return [(seq, pending[seq], held[seq]) for seq in pending if pending[seq] or held[seq]]


def _recounted_totals(connection: Connection, batch: _Batch) -> _Totals:
    """Count each endpoint's open deliveries, in their state at the end of the batch.

    This function reads all open deliveries. It runs only if the stored totals are not exact: for the first count, and
    after a server of an earlier release, which does not store totals, has counted a batch.
    """
    found: Counter[tuple[int, Status]] = Counter()
    span = {"began": batch.began, "events_through": batch.events_through}
    for endpoint, status, n in connection.execute(sql.COUNT_OPEN[connection.dialect.name], span):
        found[endpoint, Status(status)] += n
    beyond = _beyond(batch, batch.began)
    for key, _, n in _created(connection, beyond):
        found[key.endpoint_seq, Status.PENDING] -= n
    for key, _, status, n in _moves(connection, beyond):
        found[key.endpoint_seq, status] -= n
        found[key.endpoint_seq, Status.PENDING] += n
    return [(seq, found[seq, Status.PENDING], found[seq, Status.HELD]) for seq in {seq for seq, _ in found}]


# ---- rows


def _new_rows(connection: Connection, table: sql.TableStatements, tallies: Mapping[RowKey, Tally]) -> NewRows:
    found = sql.read_rows(connection, table.at, {"keys": json.dumps([*tallies])})
    stored = {
        RowKey(account, endpoint, at): (counts, outcomes, durations)
        for account, endpoint, at, *counts, outcomes, durations in found
    }
    return NewRows(tallies, stored)


def _numbers(row: sa.Row[Any]) -> Statistics:
    counts = {name: getattr(row, name) for name in COUNT_FIELDS}
    outcomes = _by_outcome(parse_sparse(row.outcomes))
    return Statistics(**counts, outcomes=outcomes, durations=parse_sparse(row.durations))


def _by_outcome(counts: Mapping[int, int]) -> dict[Outcome, int]:
    return {Outcome(number): count for number, count in counts.items()}
