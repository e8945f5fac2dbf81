"""Statements over many rows at once."""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

_SIZES: Final = (64, 16, 4, 1)


class ManyRows:
    """One statement for many rows of values, run in as few steps as the prepared sizes allow.

    `executemany` takes and gives back the interpreter lock for every row, and beside a busy event loop each time costs
    the writer a wait. One statement over 64 rows works without the lock from its first row to its last.
    """

    def __init__(self, statement: str, columns: int) -> None:
        """`{rows}` in the statement stands for the VALUES."""
        row = f"({', '.join('?' * columns)})"
        self._by_size = {size: statement.format(rows="VALUES " + ", ".join([row] * size)) for size in _SIZES}

    def run(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> int:
        """Run the statement over all rows; how many it changed."""
        changed = 0
        at = 0
        left = len(rows)
        for size, statement in self._by_size.items():
            while left >= size:
                values = list(chain.from_iterable(rows[at : at + size]))
                changed += connection.execute(statement, values).rowcount
                at += size
                left -= size
        return changed
