"""The statements that count, store and read statistics, for both engines."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.operations.statistics import COUNT_FIELDS, DURATION_BOUNDS_US, MINUTE_MS
from uplift_server.store import status_sql
from uplift_server.store.status_sql import CREATED, TEST

KEY_COLUMNS: Final = ("account_seq", "endpoint_seq", "at")
"""The key columns of a statistics row."""

Statements = Mapping[str, sa.TextClause]
"""The variants of a statement, by database name: `sqlite` and `postgresql`."""


def _listed(columns: Sequence[str], texts: Mapping[str, str] | str) -> Statements:
    """Build a query for `read_rows`. On SQLite, the query returns all rows as one JSON list of lists.

    The SQLite driver releases the interpreter lock for every row. While the event loop is busy, a query with a thousand
    rows would wait for the lock a thousand times.
    """
    by_dialect = {"sqlite": texts, "postgresql": texts} if isinstance(texts, str) else texts
    listed = f"SELECT json_group_array(json_array({', '.join(columns)})) FROM ({by_dialect['sqlite']})"  # noqa: S608
    return {"sqlite": sa.text(listed), "postgresql": sa.text(by_dialect["postgresql"])}


def read_rows(connection: Connection, query: Statements, values: Mapping[str, object]) -> Iterable[Sequence[Any]]:
    """Run a query that `_listed` has built. Return its rows, each with its values in column order."""
    found = connection.execute(query[connection.dialect.name], values)
    return json.loads(found.scalar_one()) if connection.dialect.name == "sqlite" else found


# ---- counting
# :events_after (exclusive) and :events_through (inclusive) limit the events of the batch.
# In the same way, :attempts_* limit the attempts, and :changes_* limit the status changes.
# Deliveries of events up to :began are never counted.

_MINUTE: Final = f"/ {MINUTE_MS}"
_OF_DURATION: Final = (
    "CASE "
    + " ".join(f"WHEN duration_us < {bound} THEN {number}" for number, bound in enumerate(DURATION_BOUNDS_US))
    + f" ELSE {len(DURATION_BOUNDS_US)} END"
)
COUNT_DELIVERIES: Final = _listed(
    ("minute", "account_seq", "endpoint_seq", "type_seq", "status", "n"),
    f"""
SELECT e.created_at {_MINUTE} AS minute, d.account_seq, d.endpoint_seq, e.type_seq, d.status, count(*) AS n
FROM deliveries d JOIN events e ON e.seq = d.event_seq
WHERE d.event_seq > :events_after AND d.event_seq <= :events_through AND d.trigger <> {TEST}
GROUP BY 1, 2, 3, 4, 5
""",  # noqa: S608
)
# One row for each minute, endpoint and outcome. The query builds the stored text form of the durations, because Python
# would need more time to build it. The account comes from each row's newest delivery.
COUNT_ATTEMPTS: Final = _listed(
    ("minute", "account_seq", "endpoint_seq", "outcome", "n", "first", "durations"),
    {
        dialect: f"""
SELECT g.minute, d.account_seq, g.endpoint_seq, g.outcome, g.n, g.first, g.durations
FROM (SELECT minute, endpoint_seq, outcome, CAST(sum(n) AS BIGINT) AS n, CAST(sum(first) AS BIGINT) AS first,
      {gathered}(duration || ':' || n, ' ') AS durations, max(event_seq) AS event_seq
      FROM (SELECT started_at {_MINUTE} AS minute, endpoint_seq, outcome, {_OF_DURATION} AS duration, count(*) AS n,
            sum(CASE number WHEN 1 THEN 1 ELSE 0 END) AS first, max(event_seq) AS event_seq
            FROM attempts WHERE seq > :attempts_after AND seq <= :attempts_through AND trigger <> {TEST}
            GROUP BY 1, 2, 3, 4) c
      GROUP BY 1, 2, 3) g
JOIN deliveries d ON d.event_seq = g.event_seq AND d.endpoint_seq = g.endpoint_seq
"""  # noqa: S608
        for dialect, gathered in (("sqlite", "group_concat"), ("postgresql", "string_agg"))
    },
)
# The unary + keeps SQLite from searching the attempts by event instead of by number.
COUNT_DELIVERED: Final = _listed(
    ("minute", "account_seq", "endpoint_seq", "type_seq", "n"),
    f"""
SELECT e.created_at {_MINUTE} AS minute, e.account_seq, a.endpoint_seq, e.type_seq, count(*) AS n
FROM attempts a JOIN events e ON e.seq = a.event_seq
WHERE a.seq > :attempts_after AND a.seq <= :attempts_through AND a.trigger <> {TEST}
AND a.outcome = {int(Outcome.DELIVERED)}
AND +a.event_seq > :began AND +a.event_seq <= :events_after
GROUP BY 1, 2, 3, 4
""",  # noqa: S608
)
# The type is NULL if retention has deleted the event.
COUNT_CHANGES: Final = _listed(
    ("minute", "account_seq", "endpoint_seq", "type_seq", "old_status", "new_status", "n"),
    f"""
SELECT c.created_at {_MINUTE} AS minute, c.account_seq, c.endpoint_seq, e.type_seq, old_status, new_status,
count(*) AS n FROM delivery_changes c LEFT JOIN events e ON e.seq = c.event_seq
WHERE c.seq > :changes_after AND c.seq <= :changes_through
AND c.event_seq > :began AND c.event_seq <= :events_after
GROUP BY 1, 2, 3, 4, 5, 6
""",  # noqa: S608
)

# Counts the deliveries that replays created for earlier events.
COUNT_CREATED: Final = _listed(
    ("minute", "account_seq", "endpoint_seq", "type_seq", "n"),
    f"""
SELECT c.created_at {_MINUTE} AS minute, c.account_seq, c.endpoint_seq, e.type_seq, count(*) AS n
FROM delivery_changes c LEFT JOIN events e ON e.seq = c.event_seq
WHERE c.seq > :changes_after AND c.seq <= :changes_through AND c.old_status = {CREATED}
AND c.event_seq > :began AND c.event_seq <= :events_after
GROUP BY 1, 2, 3, 4
""",  # noqa: S608
)

# The indexes and conditions for open deliveries. Without a named index, SQLite could scan all deliveries.
_OPEN_PARTS: Final = (
    ("deliveries_due", status_sql.waiting("d")),
    ("deliveries_leased", status_sql.leased("d")),
    ("deliveries_held", status_sql.held("d")),
)
COUNT_OPEN: Final = {
    dialect: sa.text(
        " UNION ALL ".join(
            f"SELECT d.endpoint_seq, d.status, count(*) AS n FROM deliveries d{hint.format(index)}"  # noqa: S608
            f" WHERE {part} AND d.trigger <> {TEST} AND d.event_seq > :began AND d.event_seq <= :events_through"
            " GROUP BY 1, 2"
            for index, part in _OPEN_PARTS
        )
    )
    for dialect, hint in (("sqlite", " INDEXED BY {}"), ("postgresql", ""))
}

# ---- rows of `rollups`, `minute_rollups` and `delivery_totals`

_VALUES: Final = (*COUNT_FIELDS, "outcomes", "durations")
_COLUMNS: Final = (*KEY_COLUMNS, *_VALUES)
# The SQL that each engine uses to read a JSON list of lists as rows, to join a table in the order of these rows, and to
# read a number.
_LISTS: Final = {
    "sqlite": ("json_each({}) page", "CROSS JOIN", "json_extract(page.value, '$[{}]')"),
    "postgresql": ("json_array_elements(CAST({} AS json)) page(value)", "JOIN", "CAST(page.value->>{} AS BIGINT)"),
}


def _joined(table: str, columns: str, lists: str, *, by: Sequence[str], more: str = "") -> dict[str, str]:
    """For each database, return a SELECT statement that joins a table with the items of a JSON list.

    `lists` is the placeholder for the JSON list, such as `:scopes`. Each item is a list of values for the
    columns `by`.
    """
    texts = {}
    for dialect, (rows, join, item) in _LISTS.items():
        found = " AND ".join(f"r.{column} = {item.format(place)}" for place, column in enumerate(by))
        texts[dialect] = f"SELECT {columns} FROM {rows.format(lists)} {join} {table} r ON {found} {more}"  # noqa: S608
    return texts


_SCOPE: Final = ("account_seq", "endpoint_seq")
_IN_RANGE: Final = "WHERE r.at >= :since AND r.at < :until"


def _compiled(texts: Mapping[str, str]) -> Statements:
    return {dialect: sa.text(text) for dialect, text in texts.items()}


def _rows_between(table: str) -> Statements:
    return _compiled(_joined(table, "r.*", ":scopes", by=_SCOPE, more=_IN_RANGE))


def _rows_at(table: str) -> Statements:
    return _listed(_COLUMNS, _joined(table, ", ".join(f"r.{name}" for name in _COLUMNS), ":keys", by=KEY_COLUMNS))


_TEXTS: Final = {"outcomes", "durations"}


def _put_rows(table: str) -> Statements:
    return {
        dialect: sa.text(f"""
INSERT INTO {table} ({", ".join(_COLUMNS)})
SELECT {
            ", ".join(
                text.format(place) if name in _TEXTS else number.format(place) for place, name in enumerate(_COLUMNS)
            )
        }
FROM {rows.format(":rows")} WHERE true
ON CONFLICT (endpoint_seq, account_seq, at)
DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _VALUES)}
""")  # noqa: S608
        for dialect, (rows, _, number) in _LISTS.items()
        for text in (number.removeprefix("CAST(").removesuffix(" AS BIGINT)"),)
    }


@dataclass(frozen=True, slots=True)
class TableStatements:
    """The statements for a table of statistics, each with one variant per database."""

    between: Statements
    at: Statements
    put: Statements

    @classmethod
    def of(cls, table: str) -> "TableStatements":
        """Build the statements of the table with this name."""
        return cls(_rows_between(table), _rows_at(table), _put_rows(table))


HOURS: Final = TableStatements.of("rollups")
MINUTES: Final = TableStatements.of("minute_rollups")
SUMS: Final = _compiled(
    _joined(
        "rollups",
        ", ".join(
            ("r.account_seq", "r.endpoint_seq", *(f"CAST(sum(r.{name}) AS BIGINT) AS {name}" for name in COUNT_FIELDS))
        ),
        ":scopes",
        by=_SCOPE,
        more=f"{_IN_RANGE} GROUP BY r.account_seq, r.endpoint_seq",
    )
)
DELETE_MINUTES: Final = sa.text(f"""
DELETE FROM minute_rollups WHERE ({", ".join(KEY_COLUMNS)}) IN
(SELECT {", ".join(KEY_COLUMNS)} FROM minute_rollups WHERE at < :before LIMIT :limit)
""")  # noqa: S608
ADD_TOTALS: Final = {
    dialect: sa.text(f"""
INSERT INTO delivery_totals (endpoint_seq, pending, held)
SELECT {", ".join(map(number.format, range(3)))} FROM {rows.format(":rows")} WHERE true
ON CONFLICT (endpoint_seq) DO UPDATE SET
pending = delivery_totals.pending + excluded.pending, held = delivery_totals.held + excluded.held
""")  # noqa: S608
    for dialect, (rows, _, number) in _LISTS.items()
}
DELETE_ZERO_TOTALS: Final = sa.text("DELETE FROM delivery_totals WHERE pending = 0 AND held = 0")
