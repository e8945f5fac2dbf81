"""The stream position on PostgreSQL, determined from sequences and table locks.

A transaction that inserts into a table first locks the table, then gets a number from the sequence. The transaction
holds the lock until it ends. The server reads the sequence, and then finds the transactions that hold such a lock. When
all of these transactions have ended, all rows up to the number that the server read are visible. A long transaction
that inserts into these tables delays the position.
"""

from collections.abc import Sequence
from operator import lt
from typing import Final

from uplift_server.store.stream_position import StreamPosition

_TABLES: Final = ("events", "attempts", "delivery_changes")
_LAST: Final = ", ".join(
    f"(SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {table}_seq_seq) AS {table}"  # noqa: S608
    for table in _TABLES
)
# Read the sequences first, then the lock holders. Both reads return current values, not the values in the snapshot.
SELECT_POSITION: Final = (
    f"WITH last AS MATERIALIZED (SELECT {_LAST}) SELECT {', '.join(_TABLES)}, ARRAY("  # noqa: S608 - contains only constants
    "SELECT DISTINCT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'"
    " AND granted AND last.events IS NOT NULL"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    f" AND relation = ANY ('{{{','.join(_TABLES)}}}'::regclass[])) FROM last"
)


class StreamPositionFinder:
    """Determines the stream position from readings.

    A reading contains the last number of each sequence, and the transactions that hold a lock to insert rows.
    """

    def __init__(self) -> None:
        self.stream_position: StreamPosition | None = None
        """The latest known stream position. None until one is known."""
        self.given = StreamPosition(0, 0, 0)
        """The last number of each sequence at the latest reading."""
        self._awaited: list[tuple[StreamPosition, set[str]]] = []
        """Earlier readings, oldest first.

        Each reading contains the transactions that can still insert rows with numbers up to the reading's numbers.
        """

    def note(self, given: StreamPosition, holders: Sequence[str]) -> None:
        """Add a reading of the sequences and lock holders. Add readings in the order in which they started."""
        if any(map(lt, given, self.given)):
            # A sequence can restart at a lower number after a crash or failover, so discard earlier readings.
            self.stream_position, self._awaited = None, []
        self.given = given
        holding = set(holders)
        open_readings: list[tuple[StreamPosition, set[str]]] = []
        for numbers, waiting_for in [*self._awaited, (given, holding)]:
            if open_holders := waiting_for & holding:
                open_readings.append((numbers, open_holders))
            else:
                self.stream_position = StreamPosition(*map(max, self.stream_position or numbers, numbers))
        # Keep two readings: the first one can advance the position soonest, and the last one can advance it furthest.
        self._awaited = open_readings if len(open_readings) <= 2 else [open_readings[0], open_readings[-1]]
