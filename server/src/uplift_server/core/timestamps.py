"""Instants as the outside world writes them: ISO 8601, UTC, milliseconds."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_KEPT: Final = 64
_INSTANTS_KEPT: Final = 64


@lru_cache(_INSTANTS_KEPT)
def format_timestamp(ms: int) -> str:
    """`2026-01-31T12:00:00.000Z` of a Unix time in ms."""
    # What is stored together has one instant, which is told in each body and each answer.
    return f"{_second_text(ms // 1000)}.{ms % 1000:03d}Z"


def format_optional_timestamp(ms: int | None) -> str | None:
    """The same where there may be none."""
    return None if ms is None else format_timestamp(ms)


def parse_timestamp(text: str) -> int:
    """The Unix time in ms of an ISO 8601 instant with its offset from UTC. ValueError saying what is wrong."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("Write an instant such as 2026-01-31T12:00:00Z.") from None
    if instant.tzinfo is None:
        raise ValueError("Add the offset from UTC, such as Z or +02:00.")
    try:
        instant = instant.astimezone(UTC)
    except OverflowError:
        # In UTC it lies outside the years 1 to 9999, and could never be written again.
        raise ValueError("This instant is out of range.") from None
    return (instant - _EPOCH) // timedelta(milliseconds=1)


@lru_cache(_SECONDS_KEPT)
def _second_text(seconds: int) -> str:
    """The part that many instants have in common."""
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
