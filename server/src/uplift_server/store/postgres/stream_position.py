"""Finding the stream position on PostgreSQL: by the numbers that were given, and who may still be using some of them.

Whoever inserts into a table has locked it, with the weakest of locks, before it is given a number, and until its rows
can be seen or never will. So once nobody who held such a lock when a number was the last to be given holds it any more,
all rows up to that number that there will ever be can be seen. What holds a lock for long, on these tables and not on
others of the server, holds back the stream position; nothing of ours does.
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
# First the numbers, then who holds a lock: neither is read as of a snapshot, but as it is just then.
LOOK: Final = (
    f"WITH last AS MATERIALIZED (SELECT {_LAST}) SELECT {', '.join(_TABLES)}, ARRAY("  # noqa: S608 - of our own texts
    "SELECT DISTINCT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'"
    " AND granted AND last.events IS NOT NULL"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    f" AND relation = ANY ('{{{','.join(_TABLES)}}}'::regclass[])) FROM last"
)


class StreamPositionFinder:
    """What is known of the stream position, and what is waited for to know more."""

    def __init__(self) -> None:
        self.stream_position: StreamPosition | None = None
        """None before anything is known."""
        self.given = StreamPosition(0, 0, 0)
        """How far numbers were given at the latest look."""
        self._awaited: list[tuple[StreamPosition, set[str]]] = []
        """Numbers that were given, with those who may still be using some of them; the higher the later."""

    def note(self, given: StreamPosition, holders: Sequence[str]) -> None:
        """Take in what was found: how far numbers are given, and who holds a lock then.

        Looks are to be noted in the order they were made in: of what an older one did not see yet, the lock is held.
        """
        if any(map(lt, given, self.given)):
            # A crash forgets numbers that nothing stored bears, a failover also what it has lost: they are given again.
            self.stream_position, self._awaited = None, []
        self.given = given
        holding = set(holders)
        still: list[tuple[StreamPosition, set[str]]] = []
        for numbers, waited_for in [*self._awaited, (given, holding)]:
            if left := waited_for & holding:
                still.append((numbers, left))
            else:
                self.stream_position = StreamPosition(*map(max, self.stream_position or numbers, numbers))
        # The first will be known first, the last tells the most.
        self._awaited = still if len(still) <= 2 else [still[0], still[-1]]
