"""The horizon: up to which numbers everything that there will ever be is there already.

On PostgreSQL a row with a lower number may be committed after one with a higher number was read. Whatever goes through
rows in the order of their numbers and never looks back stops at the horizon.
"""

from typing import Final, NamedTuple


class StreamPosition(NamedTuple):
    """By table, the highest number below which nothing can appear any more, read before the rows are."""

    events: int
    attempts: int
    changes: int
    """Of `delivery_changes`."""


NO_HORIZON: Final = StreamPosition(*[2**63 - 1] * len(StreamPosition._fields))
"""With SQLite, whose one writer gives numbers in the order of commits: all that is read."""
