"""Numbers: read by the hour, and counted from what was added to the tables since they were last counted.

Three things are read, in bites and each in the order it was written: deliveries, attempts, and the notes of changed
statuses (`schema_numbers`), each up to the horizon. Deliveries are counted with the status they have by then, and only
once all attempts and notes up to the horizon are. So what an attempt or a note says of a delivery's status is new
exactly where the delivery was counted before; else it is contained in the status that it is counted with. What stands
beyond the horizon and yet is in that status is taken out of it: it will be counted in its turn.

One process counts at a time. `save` writes a bite only where the marks still stand as they did when it was read, all of
it or nothing: whatever ends in between, nothing is counted twice or left out.
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
    COUNTS,
    DURATION_BOUNDS_US,
    HOUR_MS,
    Numbers,
    parse_sparse,
    sparse_text,
)
from uplift_server.store import marks, status_sql
from uplift_server.store.horizon import NO_HORIZON, Horizon
from uplift_server.store.schema import attempts, deliveries, events
from uplift_server.store.schema_numbers import delivery_changes

_PREFIX: Final = "numbers."
EVENTS_MARK: Final = f"{_PREFIX}events"
"""Up to which event deliveries are counted."""
ATTEMPTS_MARK: Final = f"{_PREFIX}attempts"
"""Up to which attempt."""
_BEGAN: Final = f"{_PREFIX}began"
"""Up to which event no delivery is counted: there were events before there were numbers."""
TURN_MARK: Final = f"{_PREFIX}turn"
"""How many bites were counted, or made void because what they were read from has moved."""
_MARKS: Final = (EVENTS_MARK, ATTEMPTS_MARK, _BEGAN, TURN_MARK)


class Scope(NamedTuple):
    """Whose numbers: an endpoint's; an account's where `endpoint_seq` is 0; everybody's where both are."""

    account_seq: int
    endpoint_seq: int


FLEET: Final = Scope(0, 0)


class _Place(NamedTuple):
    """Where a row stands: whose numbers, and of which hour."""

    account_seq: int
    endpoint_seq: int
    at: int


@dataclass(frozen=True, slots=True)
class Counted:
    """A bite that was counted: rows as they are to be, and where counting goes on."""

    rows: Sequence[tuple[int | str, ...]]
    """Values in the order of `_COLUMNS`."""
    marks: Mapping[str, int]
    """As they stood when it was read."""
    next_marks: Mapping[str, int]
    notes_through: int
    """Up to which number the notes were read, and are to be deleted."""
    more: bool
    """Whether something is left to be counted."""


def by_hour(connection: Connection, scopes: Iterable[Scope], *, since: int) -> dict[Scope, list[tuple[int, Numbers]]]:
    """The hours that begin at an instant (Unix ms) or later, with the numbers of each scope where it has any."""
    found: dict[Scope, list[tuple[int, Numbers]]] = {scope: [] for scope in scopes}
    for row in connection.execute(_SINCE[connection.dialect.name], {"scopes": json.dumps(list(found)), "since": since}):
        found[Scope(row.account_seq, row.endpoint_seq)].append((row.at, _numbers(row)))
    return found


def count(connection: Connection, horizon: Horizon, *, rows: int, notes: int) -> Counted | None:
    """Count what was added up to the horizon, looking at no more than about so many deliveries, attempts and notes.

    None where there is nothing new. Only reads: `save` writes it.
    """
    stood = marks.get(connection, _MARKS)
    bite = _bite(connection, stood, horizon, rows=rows, notes=notes)
    if bite is None:
        return None
    tallies = _tallied(connection, bite)
    before = _rows(connection, tallies)
    return Counted(
        rows=[
            (*place, *tally.added_to(before.get(place)))
            for place, tally in tallies.items()
            if place in before or tally.adds
        ],
        marks=stood,
        next_marks={
            EVENTS_MARK: bite.events_through,
            ATTEMPTS_MARK: bite.attempts_through,
            _BEGAN: bite.began,
            TURN_MARK: stood.get(TURN_MARK, 0) + 1,
        },
        notes_through=bite.notes_through,
        more=bite.more,
    )


def save(connection: Connection, counted: Counted) -> bool:
    """Write a bite; False where another was written since it was read, and nothing is changed."""
    if marks.get(connection, _MARKS) != counted.marks:
        return False
    marks.replace(connection, _PREFIX, counted.next_marks)
    connection.execute(sa.delete(delivery_changes).where(delivery_changes.c.seq <= counted.notes_through))
    # However many rows, they are one statement: between two of them the driver would let go of the interpreter.
    connection.execute(_PUT[connection.dialect.name], {"rows": json.dumps(counted.rows)})
    return True


# ---- what a bite is


@dataclass(frozen=True, slots=True)
class _Bite:
    """From where to where it goes, by numbers of events, attempts and notes."""

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


def _bite(connection: Connection, stood: Mapping[str, int], horizon: Horizon, *, rows: int, notes: int) -> _Bite | None:
    events_after, attempts_after = stood.get(EVENTS_MARK, 0), stood.get(ATTEMPTS_MARK, 0)
    if horizon.events < events_after or horizon.attempts < attempts_after:
        # Whoever asks knows less than was known to who counted before. Going back would count all of it again.
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
    return _Bite(
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


# ---- what is counted


class _Tally:
    """What a bite adds to a row. Made by the thousand for every look, hence plain lists and dictionaries."""

    __slots__ = ("counts", "durations", "moves", "outcomes")

    def __init__(self) -> None:
        self.counts = [0] * len(COUNTS)
        self.moves = [0] * len(COUNTS)
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
    status: COUNTS.index(status.text) for status in Status if status is not Status.PENDING
}
"""What is pending is not kept: it is what is left of all."""
_DELIVERIES_OF, _ATTEMPTS_OF, _FIRST_OF, _FIRST_MADE_OF = map(
    COUNTS.index, ("deliveries", "attempts", "first_attempts", "first_delivered")
)


def _tallied(connection: Connection, bite: _Bite) -> dict[_Place, _Tally]:
    """What the bite adds to the rows of endpoints, of their accounts, and of all."""
    own: defaultdict[_Place, _Tally] = defaultdict(_Tally)
    span = asdict(bite)
    for hour, account, endpoint, status, n in connection.execute(_DELIVERIES, span):
        counts = own[_Place(account, endpoint, hour * HOUR_MS)].counts
        counts[_DELIVERIES_OF] += n
        if status in _COUNTED_AS:
            counts[_COUNTED_AS[status]] += n
    for hour, account, endpoint, outcome, n, first, durations in connection.execute(
        _ATTEMPTS[connection.dialect.name], span
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
    if bite.sees_beyond:
        beyond = {
            "began": bite.events_after,
            "events_after": bite.events_through,
            "attempts_after": bite.attempts_through,
            "attempts_through": NO_HORIZON.attempts,
            "notes_after": bite.notes_through,
            "notes_through": NO_HORIZON.changes,
        }
        for place, status, n in _moves(connection, beyond):
            own[place].counts[_COUNTED_AS[status]] -= n
    return _with_sums(own)


def _moves(connection: Connection, span: Mapping[str, int]) -> Iterator[tuple[_Place, Status, int]]:
    """How many more or fewer deliveries of events behind `began` and up to `events_after` have a status.

    By what attempts and notes of a span tell.
    """
    for hour, account, endpoint, n in connection.execute(_MADE, span):
        yield _Place(account, endpoint, hour * HOUR_MS), Status.DELIVERED, n
    for hour, account, endpoint, old, new, n in connection.execute(_NOTED, span):
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


_HOUR: Final = f"/ {HOUR_MS}"
_OF_DURATION: Final = (
    "CASE "
    + " ".join(f"WHEN duration_us < {bound} THEN {number}" for number, bound in enumerate(DURATION_BOUNDS_US))
    + f" ELSE {len(DURATION_BOUNDS_US)} END"
)
_DELIVERIES: Final = sa.text(f"""
SELECT e.created_at {_HOUR} AS hour, d.account_seq, d.endpoint_seq, d.status, count(*) AS n
FROM deliveries d JOIN events e ON e.seq = d.event_seq
WHERE d.event_seq > :events_after AND d.event_seq <= :events_through AND d.trigger <> {status_sql.TEST}
GROUP BY 1, 2, 3, 4
""")  # noqa: S608
# One row an endpoint and outcome, its durations gathered to a text as they are kept: a row for every class of durations
# would keep the interpreter busy. An attempt is of its delivery's account, which is looked up once for such a row.
_ATTEMPTS: Final = {
    dialect: sa.text(f"""
SELECT g.hour, d.account_seq, g.endpoint_seq, g.outcome, g.n, g.first, g.durations
FROM (SELECT hour, endpoint_seq, outcome, CAST(sum(n) AS BIGINT) AS n, CAST(sum(first) AS BIGINT) AS first,
      {gathered}(duration || ':' || n, ' ') AS durations, max(event_seq) AS event_seq
      FROM (SELECT started_at {_HOUR} AS hour, endpoint_seq, outcome, {_OF_DURATION} AS duration, count(*) AS n,
            sum(CASE number WHEN 1 THEN 1 ELSE 0 END) AS first, max(event_seq) AS event_seq
            FROM attempts WHERE seq > :attempts_after AND seq <= :attempts_through AND trigger <> {status_sql.TEST}
            GROUP BY 1, 2, 3, 4) c
      GROUP BY 1, 2, 3) g
JOIN deliveries d ON d.event_seq = g.event_seq AND d.endpoint_seq = g.endpoint_seq
""")  # noqa: S608
    for dialect, gathered in (("sqlite", "group_concat"), ("postgresql", "string_agg"))
}
# The pluses keep SQLite from going by the events instead.
_MADE: Final = sa.text(f"""
SELECT e.created_at {_HOUR} AS hour, e.account_seq, a.endpoint_seq, count(*) AS n
FROM attempts a JOIN events e ON e.seq = a.event_seq
WHERE a.seq > :attempts_after AND a.seq <= :attempts_through AND a.trigger <> {status_sql.TEST}
AND a.outcome = {int(Outcome.DELIVERED)}
AND +a.event_seq > :began AND +a.event_seq <= :events_after
GROUP BY 1, 2, 3
""")  # noqa: S608
_NOTED: Final = sa.text(f"""
SELECT created_at {_HOUR} AS hour, account_seq, endpoint_seq, old_status, new_status, count(*) AS n
FROM delivery_changes WHERE seq > :notes_after AND seq <= :notes_through
AND event_seq > :began AND event_seq <= :events_after
GROUP BY 1, 2, 3, 4, 5
""")  # noqa: S608


# ---- rows

_COLUMNS: Final = (*_Place._fields, *COUNTS, "outcomes", "durations")
_VALUES: Final = _COLUMNS[len(_Place._fields) :]
# A list of lists in JSON as rows, how another table is joined to them in this order, and a number in one of them.
_LISTS: Final = {
    "sqlite": ("json_each({}) page", "CROSS JOIN", "json_extract(page.value, '$[{}]')"),
    "postgresql": ("json_array_elements(CAST({} AS json)) page(value)", "JOIN", "CAST(page.value->>{} AS BIGINT)"),
}


def _joined(columns: str, lists: str, *, by: Sequence[str], more: str = "") -> dict[str, sa.TextClause]:
    """What finds rows of `rollups` by a parameter that lists values of these columns."""
    texts = {}
    for dialect, (rows, join, item) in _LISTS.items():
        found = " AND ".join(f"r.{column} = {item.format(place)}" for place, column in enumerate(by))
        texts[dialect] = sa.text(f"SELECT {columns} FROM {rows.format(lists)} {join} rollups r ON {found} {more}")  # noqa: S608
    return texts


_SINCE: Final = _joined("r.*", ":scopes", by=("account_seq", "endpoint_seq"), more="WHERE r.at >= :since")
_AT: Final = _joined(", ".join(f"r.{name}" for name in _COLUMNS), ":places", by=("account_seq", "endpoint_seq", "at"))
_TEXTS: Final = {"outcomes", "durations"}
_PUT: Final = {
    dialect: sa.text(f"""
INSERT INTO rollups ({", ".join(_COLUMNS)})
SELECT {
        ", ".join(text.format(place) if name in _TEXTS else number.format(place) for place, name in enumerate(_COLUMNS))
    }
FROM {rows.format(":rows")} WHERE true
ON CONFLICT (endpoint_seq, account_seq, at)
DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _VALUES)}
""")  # noqa: S608
    for dialect, (rows, _, number) in _LISTS.items()
    for text in (number.removeprefix("CAST(").removesuffix(" AS BIGINT)"),)
}


def _rows(connection: Connection, places: Iterable[_Place]) -> dict[_Place, _Stood]:
    """The rows that there are in these places."""
    found = connection.execute(_AT[connection.dialect.name], {"places": json.dumps([*places])})
    return {
        _Place(account, endpoint, at): (counts, outcomes, durations)
        for account, endpoint, at, *counts, outcomes, durations in found
    }


def _numbers(row: sa.Row[Any]) -> Numbers:
    counts = {name: getattr(row, name) for name in COUNTS}
    outcomes = _by_outcome(parse_sparse(row.outcomes))
    return Numbers(**counts, outcomes=outcomes, durations=parse_sparse(row.durations))


def _by_outcome(counts: Mapping[int, int]) -> dict[Outcome, int]:
    return {Outcome(number): count for number, count in counts.items()}
