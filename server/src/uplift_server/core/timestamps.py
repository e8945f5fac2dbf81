"""Timestamps in the API and the logs: ISO 8601 in UTC with milliseconds."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
TIMESTAMP_MAX: Final = 253_402_300_799_999
"""The last millisecond of year 9999 (Unix ms), the latest time that can be formatted."""
_SECONDS_CACHED: Final = 64
_TIMESTAMPS_CACHED: Final = 64


@lru_cache(_TIMESTAMPS_CACHED)
def format_timestamp(ms: int) -> str:
    """Format a Unix time in ms as `2026-01-31T12:00:00.000Z`."""
    # Rows of one commit share a timestamp, so the cache is effective.
    return f"{_second_text(ms // 1000)}.{ms % 1000:03d}Z"


def format_optional_timestamp(ms: int | None) -> str | None:
    """Format a Unix time in ms. Return None if the time is None."""
    return None if ms is None else format_timestamp(ms)


def parse_timestamp(text: str) -> int:
    """Return the Unix time in ms of an ISO 8601 timestamp with an offset.

    Raises ValueError with a message for users.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("The text is not a timestamp. Use ISO 8601, such as 2026-01-31T12:00:00Z.") from None
    if instant.tzinfo is None:
        raise ValueError("The timestamp has no offset from UTC. Add an offset, such as Z or +02:00.")
    try:
        instant = instant.astimezone(UTC)
    except OverflowError:
        # In UTC, the year is before 1 or after 9999.
        raise ValueError("The timestamp is out of range. Use a year from 1 to 9999.") from None
    return (instant - _EPOCH) // timedelta(milliseconds=1)


@lru_cache(_SECONDS_CACHED)
def _second_text(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
