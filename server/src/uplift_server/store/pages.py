"""Pagination of lists, in ascending or descending order, forward or backward.

Each row of a list has a key: one or more integers that define the order. A page contains the first rows after a key.
The query for a page reads one extra row, which shows whether there is a next page.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from uplift_server.store.event_times import DISORDER_MS
from uplift_server.store.records import Page

T = TypeVar("T")
KEY_MAX: Final = 2**62
"""A number that is higher than every number in row keys."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A request for one page of a list."""

    limit: int
    key: tuple[int, ...] | None = None
    """The key after which the page starts, in reading order. None for the first page."""
    ascending: bool = False
    """Whether the list starts with the oldest row instead of the newest."""
    backward: bool = False
    """Whether to return the rows before the key instead of the rows after it."""

    @property
    def reads_up(self) -> bool:
        """Whether to read the rows in ascending order. For a backward page, `page` then reverses the rows."""
        return self.ascending != self.backward

    def ordered(self, column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
        """Return the expression that sorts a column in reading order."""
        return column.asc() if self.reads_up else column.desc()

    def narrowed(self, low: int, high: int, *, to_next: int = 1) -> tuple[int, int]:
        """Narrow the range from `low` to `high` to the values that can be the first number of a key on this page.

        `to_next` is the smallest possible difference between the values of two rows: 0 if several rows can share a
        value, otherwise 1.
        """
        if self.key is None:
            return low, high
        return (max(low, self.key[0] + to_next), high) if self.reads_up else (low, min(high, self.key[0] - to_next))

    def chosen(self, rows: Iterable[T], number: Callable[[T], int]) -> list[T]:
        """Select the page's rows and the first row of the next page, if any, from `rows`.

        Return them in one list, in reading order. `number` returns a row's key.
        """
        low, high = self.narrowed(0, KEY_MAX)
        chosen = [row for row in rows if low <= number(row) <= high]
        return sorted(chosen, key=number, reverse=not self.reads_up)[: self.limit + 1]

    def of(self, query: sa.Select[Any], *columns: sa.ColumnElement[int]) -> sa.Select[Any]:
        """Add the page's range, order and limit to a query. `columns` are the key columns.

        If the key has several columns, the query must already limit the first column to the range from `narrowed`. The
        added conditions are correct only with this limit, which also lets the database use an index.
        """
        if self.key is not None:
            is_beyond = [
                column > number if self.reads_up else column < number
                for column, number in zip(columns, self.key, strict=True)
            ]
            # Do not require an equal number in the first column, because `narrowed` already limits this column.
            equal: sa.ColumnElement[bool] = sa.true()
            conditions = [is_beyond[0]]
            for place in range(1, len(columns)):
                conditions.append(sa.and_(equal, is_beyond[place]))
                equal = sa.and_(equal, columns[place] == self.key[place])
            query = query.where(sa.or_(*conditions))
        return query.order_by(*map(self.ordered, columns)).limit(self.limit + 1)

    def page(
        self, rows: Sequence[T], key: Callable[[T], tuple[int, ...]], read_to: tuple[int, ...] | None = None
    ) -> Page[T]:
        """Build the page from up to `limit` + 1 rows in reading order. `key` returns a row's key.

        If the query did not check all rows in the list, `read_to` is the key of the last row that it checked.
        """
        items = list(rows[: self.limit])
        onward = key(items[-1]) if len(rows) > self.limit else read_to
        # The page in the other direction begins with the row at the requested key.
        back = None if self.key is None else (*self.key[:-1], self.key[-1] + (1 if self.reads_up else -1))
        return Page(items[::-1], back, onward) if self.backward else Page(items, onward, back)


def numbers_between(
    connection: Connection, at: sa.Column[int], *, after: int | None, before: int | None
) -> tuple[int, int]:
    """Return the range of row numbers for the rows between two timestamps (exclusive, Unix ms).

    `at` is the indexed timestamp column. Rows outside the time range can also have a number in this range.
    Therefore, the caller must compare timestamps too.
    """
    seq = at.table.c.seq
    low, high = 1, KEY_MAX
    if after is not None:
        last_before = sa.select(seq).where(at <= after - DISORDER_MS).order_by(at.desc(), seq.desc()).limit(1)
        low = (connection.scalar(last_before) or 0) + 1
    if before is not None:
        first_after = sa.select(seq).where(at >= before + DISORDER_MS).order_by(at, seq).limit(1)
        high = connection.scalar(first_after) or high
    return low, high


def window_end(
    connection: Connection,
    column: sa.ColumnElement[int],
    tables: sa.FromClause,
    conditions: Sequence[sa.ColumnElement[bool]],
    *,
    low: int,
    high: int,
    rows: int,
    up: bool,
) -> int | None:
    """Return the number of the last row that the query for a page reads, or None if the query reads the whole range.

    If no index supports the filter, the query reads at most `rows` rows. If few of these rows match the filter, the
    page contains fewer rows than its limit.
    """
    query = sa.select(column).select_from(tables).where(column.between(low, high), *conditions)
    found: int | None = connection.scalars(
        query.order_by(column.asc() if up else column.desc()).offset(rows - 1).limit(1)
    ).first()
    return found


def page_of(rows: Sequence[T], limit: int, key: Callable[[T], tuple[int, ...]]) -> Page[T]:
    """Build a page of a forward-only list from up to `limit` + 1 rows. `key` returns a row's key."""
    return PageRequest(limit).page(rows, key)
