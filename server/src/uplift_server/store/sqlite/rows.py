"""Statements over many rows at once."""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

ROWS_MAX: Final = 64


class ManyRows:
    """One statement for many rows of values, run once for every ROWS_MAX rows or part of that.

    `executemany` takes and gives back the interpreter lock for every row, and beside a busy event loop each time costs
    the writer a wait. One statement over many rows works without the lock from its first row to its last.
    """

    def __init__(self, statement: str, columns: int) -> None:
        """`{rows}` in the statement stands for the VALUES."""
        row = f"({', '.join('?' * columns)})"
        # By number of rows, so that the driver finds each prepared.
        self._statements = [
            statement.format(rows="VALUES " + ", ".join([row] * size)) for size in range(1, ROWS_MAX + 1)
        ]

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> int:
        """Run the statement over all rows; how many it changed."""
        changed = 0
        for at in range(0, len(rows), ROWS_MAX):
            part = rows[at : at + ROWS_MAX]
            values = list(chain.from_iterable(part))
            changed += connection.execute(self._statements[len(part) - 1], values).rowcount
        return changed
