"""Statements over many rows at once."""

import sqlite3
from bisect import bisect_right
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

SIZES: Final = (*range(1, 65), 128, 256, 512)
"""The numbers of rows for which there is a statement: few, so that the driver keeps all of them prepared."""


class ManyRows:
    """One statement for many rows of values, run once for every block of rows.

    `executemany` releases and takes the interpreter lock for every row. While the event loop is busy, the writer waits
    for the lock each time. One statement over many rows runs without the lock from its first row to its last.
    """

    def __init__(self, statement: str, columns: int) -> None:
        """`{rows}` in the statement stands for the VALUES."""
        row = f"({', '.join('?' * columns)})"
        self._statements = {size: statement.format(rows="VALUES " + ", ".join([row] * size)) for size in SIZES}

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> int:
        """Run the statement over all rows. Return the number of rows that it changed."""
        changed = at = 0
        while at < len(rows):
            size = SIZES[bisect_right(SIZES, len(rows) - at) - 1]
            values = list(chain.from_iterable(rows[at : at + size]))
            changed += connection.execute(self._statements[size], values).rowcount
            at += size
        return changed
