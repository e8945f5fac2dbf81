"""Statistics: rows per hour in `rollups`, counted from what was added to the tables since the last count.

A count reads three tables in batches, each in the order it was written and up to the horizon: deliveries, attempts, and
the notes of changed statuses (`schema_numbers`). Deliveries are counted with their current status, and only after all
attempts and notes up to the horizon. An attempt or note of a delivery that was counted before therefore changes the
counts; one of a later delivery is contained in the status that is counted with it. A status that comes from an attempt
or note beyond the horizon is subtracted, because that attempt or note is counted later.

One process counts at a time. `save` writes a batch only if the marks are the same as when it was read, in one
transaction, so nothing is counted twice or left out after a crash.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    Statistics,
    parse_sparse,
    sparse_text,
)
from uplift_server.store import server_values
from uplift_server.store import statistics_statements as sql
from uplift_server.store.schema import attempts, deliveries, events
from uplift_server.store.schema_statistics import delivery_changes
from uplift_server.store.stream_position import NO_HORIZON, StreamPosition

_PREFIX: Final = "numbers."
EVENTS_MARK: Final = f"{_PREFIX}events"
"""Up to which event deliveries are counted."""
ATTEMPTS_MARK: Final = f"{_PREFIX}attempts"
"""Up to which attempt."""
_BEGAN: Final = f"{_PREFIX}began"
"""Up to which event no delivery is counted: there were events before there were numbers."""
TURN_MARK: Final = f"{_PREFIX}turn"
"""The number of batches that were counted, or made void because their rows have moved."""
_MARKS: Final = (EVENTS_MARK, ATTEMPTS_MARK, _BEGAN, TURN_MARK)


class Scope(NamedTuple):
    """An endpoint; with `endpoint_seq` 0 all endpoints of an account; with both 0 all accounts."""

    account_seq: int
    endpoint_seq: int


FLEET: Final = Scope(0, 0)


class _Place(NamedTuple):
    """The key of a row: a scope and an hour (Unix ms), in the order of KEY_COLUMNS."""

    account_seq: int
    endpoint_seq: int
    at: int


@dataclass(frozen=True, slots=True)
class Counted:
    """A counted batch: its rows of `rollups`, and where the next batch starts."""

    rows: Sequence[tuple[int | str, ...]]
    """Values in the order of the parameters of PUT_ROWS."""
    marks: Mapping[str, int]
    """The marks when it was read."""
    next_marks: Mapping[str, int]
    notes_through: int
    """The last note that was read. Notes up to it are deleted."""
    more: bool
    """Whether there is more to count."""


def by_hour(
    connection: Connection, scopes: Iterable[Scope], *, since: int
) -> dict[Scope, list[tuple[int, Statistics]]]:
    """Return the statistics of each scope by hour, for hours that begin at `since` (Unix ms) or later."""
    found: dict[Scope, list[tuple[int, Statistics]]] = {scope: [] for scope in scopes}
    for row in connection.execute(
        sql.ROWS_SINCE[connection.dialect.name], {"scopes": json.dumps(list(found)), "since": since}
    ):
        found[Scope(row.account_seq, row.endpoint_seq)].append((row.at, _numbers(row)))
    return found


def count(connection: Connection, horizon: StreamPosition, *, rows: int, notes: int) -> Counted | None:
    """Count what was added up to the horizon: at most about `rows` deliveries and attempts, and `notes` notes.

    Only reads: `save` writes the result. Returns None if there is nothing new.
    """
    stood = server_values.get(connection, _MARKS)
    batch = _batch(connection, stood, horizon, rows=rows, notes=notes)
    if batch is None:
        return None
    tallies = _tallied(connection, batch)
    before = _rows(connection, tallies)
    return Counted(
        rows=[
            (*place, *tally.added_to(before.get(place)))
            for place, tally in tallies.items()
            if place in before or tally.adds
        ],
        marks=stood,
        next_marks={
            EVENTS_MARK: batch.events_through,
            ATTEMPTS_MARK: batch.attempts_through,
            _BEGAN: batch.began,
            TURN_MARK: stood.get(TURN_MARK, 0) + 1,
        },
        notes_through=batch.notes_through,
        more=batch.more,
    )


def save(connection: Connection, counted: Counted) -> bool:
    """Write a batch. Return False, with nothing changed, if another was written since it was read."""
    if server_values.get(connection, _MARKS) != counted.marks:
        return False
    server_values.replace(connection, _PREFIX, counted.next_marks)
    connection.execute(sa.delete(delivery_changes).where(delivery_changes.c.seq <= counted.notes_through))
    # One statement for all rows: between two statements the driver releases the interpreter lock.
    connection.execute(sql.PUT_ROWS[connection.dialect.name], {"rows": json.dumps(counted.rows)})
    return True


# ---- batches


@dataclass(frozen=True, slots=True)
class _Batch:
    """The range of a batch, in numbers of events, attempts and notes."""

    began: int
    events_after: int
    events_through: int
    attempts_after: int
    attempts_through: int
    notes_after: int
    notes_through: int
    more: bool
    sees_beyond: bool
    """Whether there are attempts or notes beyond the horizon."""


def _batch(
    connection: Connection, stood: Mapping[str, int], horizon: StreamPosition, *, rows: int, notes: int
) -> _Batch | None:
    events_after, attempts_after = stood.get(EVENTS_MARK, 0), stood.get(ATTEMPTS_MARK, 0)
    if horizon.events < events_after or horizon.attempts < attempts_after:
        # The horizon is behind that of the last count. Going back would count rows again.
        return None
    newest = [
        connection.scalar(sa.select(sa.func.max(table.c.seq))) or 0 for table in (events, attempts, delivery_changes)
    ]
    last_event, last_attempt, last_note = map(min, newest, horizon)
    if not last_note and (last_event, last_attempt) == (events_after, attempts_after):
        return None
    attempts_through = min(last_attempt, attempts_after + rows)
    notes_through = min(last_note, _nth(connection, delivery_changes.c.seq, 0, notes) or last_note)
    events_through = events_after
    if level := (attempts_through, notes_through) == (last_attempt, last_note):
        events_through = min(last_event, _nth(connection, deliveries.c.event_seq, events_after, rows) or last_event)
    return _Batch(
        began=stood.get(_BEGAN, 0),
        events_after=events_after,
        events_through=events_through,
        attempts_after=attempts_after,
        attempts_through=attempts_through,
        notes_after=0,
        notes_through=notes_through,
        more=not level or events_through < last_event,
        sees_beyond=level and (last_attempt, last_note) != tuple(newest[1:]),
    )


def _nth(connection: Connection, column: sa.Column[int], after: int, count: int) -> int | None:
    """The value of the row so many rows behind a value; None where there are not so many."""
    query = sa.select(column).where(column > after).order_by(column).offset(count - 1).limit(1)
    return connection.scalars(query).first()


# ---- counting


class _Tally:
    """What a batch adds to a row. A batch has thousands, so these are plain lists and dictionaries."""

    __slots__ = ("counts", "durations", "moves", "outcomes")

    def __init__(self) -> None:
        self.counts = [0] * len(COUNT_FIELDS)
        self.moves = [0] * len(COUNT_FIELDS)
        """How many more or fewer stand in a status, of deliveries that were counted before."""
        self.outcomes: dict[int, int] = {}
        self.durations: dict[int, int] = {}

    @property
    def adds(self) -> bool:
        """Whether it makes a row where there is none. Where only moves are left, retention has removed the row."""
        return any(self.counts)

    def update(self, other: "_Tally") -> None:
        """Add another's."""
        self.counts = [*map(add, self.counts, other.counts)]
        self.moves = [*map(add, self.moves, other.moves)]
        _add(self.outcomes, other.outcomes)
        _add(self.durations, other.durations)

    def added_to(self, before: "_Stood | None") -> tuple[int | str, ...]:
        """The values of the row as it is then."""
        if before is None:
            return (*self.counts, sparse_text(self.outcomes), sparse_text(self.durations))
        counts, outcomes, durations = before
        return (
            *map(add, map(add, counts, self.counts), self.moves),
            _merged(outcomes, self.outcomes),
            _merged(durations, self.durations),
        )


_Stood = tuple[Sequence[int], str, str]
"""A row that there is: its counts, outcomes and durations."""


def _add(to: dict[int, int], more: Mapping[int, int]) -> None:
    for number, count in more.items():
        to[number] = to.get(number, 0) + count


def _merged(text: str, more: Mapping[int, int]) -> str:
    if not more:
        return text
    counts = parse_sparse(text)
    _add(counts, more)
    return sparse_text(counts)


_COUNTED_AS: Final[dict[Status, int]] = {
    status: COUNT_FIELDS.index(status.text) for status in Status if status is not Status.PENDING
}
"""What is pending is not kept: it is what is left of all."""
_DELIVERIES_OF, _ATTEMPTS_OF, _FIRST_OF, _FIRST_MADE_OF = map(
    COUNT_FIELDS.index, ("deliveries", "attempts", "first_attempts", "first_delivered")
)


def _tallied(connection: Connection, batch: _Batch) -> dict[_Place, _Tally]:
    """Return what the batch adds to the rows of endpoints, of their accounts, and of all accounts."""
    own: defaultdict[_Place, _Tally] = defaultdict(_Tally)
    span = asdict(batch)
    for hour, account, endpoint, status, n in connection.execute(sql.COUNT_DELIVERIES, span):
        counts = own[_Place(account, endpoint, hour * HOUR_MS)].counts
        counts[_DELIVERIES_OF] += n
        if status in _COUNTED_AS:
            counts[_COUNTED_AS[status]] += n
    for hour, account, endpoint, outcome, n, first, durations in connection.execute(
        sql.COUNT_ATTEMPTS[connection.dialect.name], span
    ):
        tally = own[_Place(account, endpoint, hour * HOUR_MS)]
        tally.counts[_ATTEMPTS_OF] += n
        tally.counts[_FIRST_OF] += first
        if outcome == Outcome.DELIVERED:
            tally.counts[_FIRST_MADE_OF] += first
        tally.outcomes[outcome] = n
        _add(tally.durations, parse_sparse(durations))
    for place, status, n in _moves(connection, span):
        own[place].moves[_COUNTED_AS[status]] += n
    if batch.sees_beyond:
        beyond = {
            "began": batch.events_after,
            "events_after": batch.events_through,
            "attempts_after": batch.attempts_through,
            "attempts_through": NO_HORIZON.attempts,
            "notes_after": batch.notes_through,
            "notes_through": NO_HORIZON.changes,
        }
        for place, status, n in _moves(connection, beyond):
            own[place].counts[_COUNTED_AS[status]] -= n
    return _with_sums(own)


def _moves(connection: Connection, span: Mapping[str, int]) -> Iterator[tuple[_Place, Status, int]]:
    """How many more or fewer deliveries of events behind `began` and up to `events_after` have a status.

    By what attempts and notes of a span tell.
    """
    for hour, account, endpoint, n in connection.execute(sql.COUNT_DELIVERED, span):
        yield _Place(account, endpoint, hour * HOUR_MS), Status.DELIVERED, n
    for hour, account, endpoint, old, new, n in connection.execute(sql.COUNT_CHANGES, span):
        for status, change in ((old, -n), (new, n)):
            if status in _COUNTED_AS:
                yield _Place(account, endpoint, hour * HOUR_MS), status, change


def _with_sums(own: Mapping[_Place, _Tally]) -> dict[_Place, _Tally]:
    """Endpoints' tallies with those of their accounts and of all."""
    sums: defaultdict[_Place, _Tally] = defaultdict(_Tally)
    for (account, _, at), tally in own.items():
        sums[_Place(account, 0, at)].update(tally)
        sums[_Place(0, 0, at)].update(tally)
    return {**own, **sums}


# ---- rows


def _rows(connection: Connection, places: Iterable[_Place]) -> dict[_Place, _Stood]:
    """The rows that there are in these places."""
    found = connection.execute(sql.ROWS_AT[connection.dialect.name], {"places": json.dumps([*places])})
    return {
        _Place(account, endpoint, at): (counts, outcomes, durations)
        for account, endpoint, at, *counts, outcomes, durations in found
    }


def _numbers(row: sa.Row[Any]) -> Statistics:
    counts = {name: getattr(row, name) for name in COUNT_FIELDS}
    outcomes = _by_outcome(parse_sparse(row.outcomes))
    return Statistics(**counts, outcomes=outcomes, durations=parse_sparse(row.durations))


def _by_outcome(counts: Mapping[int, int]) -> dict[Outcome, int]:
    return {Outcome(number): count for number, count in counts.items()}
