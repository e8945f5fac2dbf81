"""Statements that process many rows in one execution."""

import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any, Final, Generic, TypeVar, cast

Row = TypeVar("Row", bound=tuple[Any, ...])

SIZES: Final = (*range(1, 65), 128, 256, 512)
"""The row counts for which a statement exists.

There are few of them, so that the driver can cache all statements.
"""
STATEMENT_BYTES_MAX: Final = 256 * 1024
"""The maximum size in bytes of the rows in one execution.

A single row can be larger. SQLite copies the values, and the driver keeps the copies until the next execution of the
same statement.
"""


class ManyRows(Generic[Row]):
    """A statement for many rows, executed once for each block of rows.

    The driver's `executemany` would release and take the interpreter lock for every row. While the event loop is busy,
    the writer would wait for the lock each time. One execution with many rows releases the lock once and takes it
    again only after the last row.
    """

    def __init__(self, statement: str, row: type[Row], size_of: Callable[[Row], int] | None = None) -> None:
        """Prepare the statement for each number of rows in SIZES. `row` is the NamedTuple with the parameters of a row.

        In the statement, `:values` becomes VALUES with the rows. `:rows` becomes a query whose columns have the names
        of the fields. `size_of` returns the size of a row in bytes. Omit `size_of` if all rows are small.
        """
        fields = cast("Any", row)._fields
        marks = f"({', '.join('?' * len(fields))})"
        names = ", ".join(f"column{number} AS {field}" for number, field in enumerate(fields, 1))
        self._size_of = size_of
        self._statements = {}
        for size in SIZES:
            values = "VALUES " + ", ".join([marks] * size)
            rows = f"SELECT {names} FROM ({values})"  # noqa: S608 - names of fields
            self._statements[size] = statement.replace(":values", values).replace(":rows", rows)

    def run(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> int:
        """Execute the statement with all rows. Return the number of rows that it changed in the database."""
        changed = at = 0
        while at < len(rows):
            size = SIZES[bisect_right(SIZES, self._fitting(rows, at)) - 1]
            values = list(chain.from_iterable(rows[at : at + size]))
            changed += connection.execute(self._statements[size], values).rowcount
            at += size
        return changed

    def _fitting(self, rows: Sequence[Row], at: int) -> int:
        """Return the maximum number of rows for one execution, starting with the row at the index `at`."""
        most: int = min(len(rows) - at, SIZES[-1])
        if self._size_of is None:
            return most
        size = 0
        for count, row in enumerate(islice(rows, at, at + most)):
            size += self._size_of(row)
            if size > STATEMENT_BYTES_MAX and count:
                return count
        return most
