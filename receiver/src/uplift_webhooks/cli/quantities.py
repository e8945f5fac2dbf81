"""Parsers for option values: durations, timestamps and percentages."""

import re
from datetime import datetime, timedelta, timezone
from typing import Final

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def duration_seconds(text: str) -> float:
    """Parse `15s`, `5m`, `1.5h` or `3d`. Raises ValueError with a message for users."""
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is not a duration with a unit, such as 30s, 15m, 2h or 1d")
    return float(found[1]) * _UNITS[found[2]]


def since(text: str, now: datetime) -> str:
    """Convert a duration to the timestamp that is this duration before `now`. Return other text unchanged."""
    try:
        seconds = duration_seconds(text)
    except ValueError:
        return text.strip()
    return format_timestamp(now - timedelta(seconds=seconds))


def format_timestamp(moment: datetime) -> str:
    """Format a timestamp: ISO 8601, UTC, milliseconds."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def share(text: str) -> float:
    """Parse `20%` or `0.2`. Raises ValueError with a message for users."""
    written = text.strip()
    try:
        value = float(written[:-1]) / 100 if written.endswith("%") else float(written)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is not a percentage (0% to 100%) or a fraction (0 to 1), such as 20% or 0.2")
    return value
