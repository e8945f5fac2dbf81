"""The stream position: the numbers up to which all rows are visible.

On PostgreSQL, a row can be committed after a row with a higher number. Some readers read rows in number order and never
go back. These readers stop at the stream position, so that they do not miss rows.
"""

from typing import Final, NamedTuple


class StreamPosition(NamedTuple):
    """For each table, the number up to which all rows are visible.

    Read the stream position before you read the rows.
    """

    events: int
    attempts: int
    changes: int
    """The number up to which all rows of `delivery_changes` are visible."""


STREAM_POSITION_MAX: Final = StreamPosition(*[2**63 - 1] * len(StreamPosition._fields))
"""A stream position that includes all rows.

SQLite always uses this position, because its only writer assigns numbers in commit order.
"""
