"""Durations in the notation that settings and options use: `250ms`, `15s`, `5m`, `1h30m`, `3d`."""

import re
from itertools import pairwise
from typing import Final

_UNITS_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
SPANS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_SHAPE = re.compile(r"(?:[0-9]{1,15}(?:ms|[dhms]))+")
_PART = re.compile(r"([0-9]+)(ms|[dhms])")
_DURATION_MS_MAX: Final = 100 * 365 * _UNITS_MS["d"]


def parse_duration(text: str) -> int:
    """Parse a duration as milliseconds. A duration consists of whole numbers with units, larger units first.

    `0` needs no unit. Raises ValueError for other strings and for durations of more than 100 years. The message is for
    users.
    """
    stripped = text.strip()
    if stripped == "0":
        return 0
    if not _SHAPE.fullmatch(stripped):
        raise ValueError(
            f"{text!r} is not a duration. Use whole numbers with units, such as 250ms, 15s, 5m, 1h30m or 3d."
        )
    parts = _PART.findall(stripped)
    sizes = [_UNITS_MS[unit] for _, unit in parts]
    if any(size <= following for size, following in pairwise(sizes)):
        raise ValueError(f"{text!r} has units in the wrong order. Use each unit once, larger units first, as in 1h30m.")
    total = sum(int(number) * size for (number, _), size in zip(parts, sizes, strict=True))
    if total > _DURATION_MS_MAX:
        raise ValueError(f"{text!r} is more than 100 years. Use a shorter duration.")
    return total


def format_duration(duration_ms: int) -> str:
    """Format milliseconds (0 or more) in the notation that `parse_duration` parses, such as `1h30m`."""
    rest = duration_ms
    text = ""
    for unit, size in _UNITS_MS.items():
        number, rest = divmod(rest, size)
        if number:
            text += f"{number}{unit}"
    return text or "0s"


def format_span(seconds: float) -> str:
    """Format a duration for people in at most two units: `3 d 4 h`, `12 min`, `5 s`."""
    left = max(0, int(seconds))
    parts = []
    for size, unit in SPANS:
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number} {unit}")
        if len(parts) == 2 or (parts and not number):
            break
    return " ".join(parts) or "0 s"
