"""The stream position: the numbers up to which no more rows can appear.

On PostgreSQL, a row can be committed after a row with a higher number. Readers that read rows in the order of
their numbers and never go back stop at the stream position, so that they do not miss rows.
"""

from typing import Final, NamedTuple


class StreamPosition(NamedTuple):
    """The position in each table. Read the position before the rows."""

    events: int
    attempts: int
    changes: int
    """The position in `delivery_changes`."""


STREAM_POSITION_MAX: Final = StreamPosition(*[2**63 - 1] * len(StreamPosition._fields))
"""A position that includes all rows.

On SQLite, the position is always this one: one writer assigns numbers in the order of commits, so readers do not miss
rows."""
