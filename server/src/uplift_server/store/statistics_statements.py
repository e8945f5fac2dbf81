"""The statements that count and read statistics, for both engines."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.operations.statistics import COUNT_FIELDS, DURATION_BOUNDS_US, HOUR_MS
from uplift_server.store.status_sql import TEST

KEY_COLUMNS: Final = ("account_seq", "endpoint_seq", "at")
"""The columns of the key of `rollups`."""

# ---- counting
# :events_after (exclusive) and :events_through (inclusive) are the events of the batch; its attempts and changes of
# status have parameters of the same form. Deliveries of events up to :began are never counted.

_HOUR: Final = f"/ {HOUR_MS}"
_OF_DURATION: Final = (
    "CASE "
    + " ".join(f"WHEN duration_us < {bound} THEN {number}" for number, bound in enumerate(DURATION_BOUNDS_US))
    + f" ELSE {len(DURATION_BOUNDS_US)} END"
)
COUNT_DELIVERIES: Final = sa.text(f"""
SELECT e.created_at {_HOUR} AS hour, d.account_seq, d.endpoint_seq, d.status, count(*) AS n
FROM deliveries d JOIN events e ON e.seq = d.event_seq
WHERE d.event_seq > :events_after AND d.event_seq <= :events_through AND d.trigger <> {TEST}
GROUP BY 1, 2, 3, 4
""")  # noqa: S608
# One row for each endpoint and outcome, with its durations in the stored text form, because Python would need more time
# for a row per class of durations. The newest delivery of each row provides the account.
COUNT_ATTEMPTS: Final = {
    dialect: sa.text(f"""
SELECT g.hour, d.account_seq, g.endpoint_seq, g.outcome, g.n, g.first, g.durations
FROM (SELECT hour, endpoint_seq, outcome, CAST(sum(n) AS BIGINT) AS n, CAST(sum(first) AS BIGINT) AS first,
      {gathered}(duration || ':' || n, ' ') AS durations, max(event_seq) AS event_seq
      FROM (SELECT started_at {_HOUR} AS hour, endpoint_seq, outcome, {_OF_DURATION} AS duration, count(*) AS n,
            sum(CASE number WHEN 1 THEN 1 ELSE 0 END) AS first, max(event_seq) AS event_seq
            FROM attempts WHERE seq > :attempts_after AND seq <= :attempts_through AND trigger <> {TEST}
            GROUP BY 1, 2, 3, 4) c
      GROUP BY 1, 2, 3) g
JOIN deliveries d ON d.event_seq = g.event_seq AND d.endpoint_seq = g.endpoint_seq
""")  # noqa: S608
    for dialect, gathered in (("sqlite", "group_concat"), ("postgresql", "string_agg"))
}
# The unary + keeps SQLite from using the index of events instead.
COUNT_DELIVERED: Final = sa.text(f"""
SELECT e.created_at {_HOUR} AS hour, e.account_seq, a.endpoint_seq, count(*) AS n
FROM attempts a JOIN events e ON e.seq = a.event_seq
WHERE a.seq > :attempts_after AND a.seq <= :attempts_through AND a.trigger <> {TEST}
AND a.outcome = {int(Outcome.DELIVERED)}
AND +a.event_seq > :began AND +a.event_seq <= :events_after
GROUP BY 1, 2, 3
""")  # noqa: S608
COUNT_CHANGES: Final = sa.text(f"""
SELECT created_at {_HOUR} AS hour, account_seq, endpoint_seq, old_status, new_status, count(*) AS n
FROM delivery_changes WHERE seq > :changes_after AND seq <= :changes_through
AND event_seq > :began AND event_seq <= :events_after
GROUP BY 1, 2, 3, 4, 5
""")  # noqa: S608

# ---- rows of `rollups`

_VALUES: Final = (*COUNT_FIELDS, "outcomes", "durations")
_COLUMNS: Final = (*KEY_COLUMNS, *_VALUES)
# How each engine reads a JSON list of lists as rows, joins a table in that order, and reads a number from a row.
_LISTS: Final = {
    "sqlite": ("json_each({}) page", "CROSS JOIN", "json_extract(page.value, '$[{}]')"),
    "postgresql": ("json_array_elements(CAST({} AS json)) page(value)", "JOIN", "CAST(page.value->>{} AS BIGINT)"),
}


def _joined(columns: str, lists: str, *, by: Sequence[str], more: str = "") -> dict[str, sa.TextClause]:
    """Return the statements that find rows of `rollups` by a JSON list of values of the columns `by`."""
    texts = {}
    for dialect, (rows, join, item) in _LISTS.items():
        found = " AND ".join(f"r.{column} = {item.format(place)}" for place, column in enumerate(by))
        texts[dialect] = sa.text(f"SELECT {columns} FROM {rows.format(lists)} {join} rollups r ON {found} {more}")  # noqa: S608
    return texts


ROWS_SINCE: Final = _joined("r.*", ":scopes", by=("account_seq", "endpoint_seq"), more="WHERE r.at >= :since")
ROWS_AT: Final = _joined(", ".join(f"r.{name}" for name in _COLUMNS), ":keys", by=KEY_COLUMNS)
_TEXTS: Final = {"outcomes", "durations"}
PUT_ROWS: Final = {
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
