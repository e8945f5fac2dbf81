"""What a table of a terminal shows in place of long values: ids by a beginning, instants by their distance."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from uplift_server.core.timestamps import parse_instant

BEGINNING: Final = 12
"""How many characters of an id are shown at least, its prefix not counted: those that tell its millisecond."""
_DELIVERY_EVENT: Final = 32
"""A delivery's id begins with its event's, which deliveries to several endpoints share."""
_ENDING: Final = 4
BETWEEN: Final = ".."
"""Stands between the beginning and the end of an id, where only both together are its own."""
_PREFIX: Final = re.compile(r"^[a-z]+_")
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a list. `name` is the field it shows."""

    name: str
    heading: str
    kind: Literal["text", "id", "instant"] = "text"
    gives: bool = False
    """Whether its text may be cut where the table would not fit."""
    folds: bool = False
    """Whether its text goes on in further lines."""
    dropped: int = 0
    """Where the table would still not fit, the columns with the highest number above 0 are left out first."""


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """For each id a short form that no other of them has, without the prefix. `lookup` takes all of these."""
    bare = {each: _PREFIX.sub("", each) for each in ids}
    return {each: _short(text, [other for other in bare.values() if other != text]) for each, text in bare.items()}


def _short(text: str, others: Sequence[str]) -> str:
    shared = max((_shared(text, other) for other in others), default=0)
    if shared < _DELIVERY_EVENT:
        return text[: max(BEGINNING, shared + 1)]
    # The deliveries of one event: the beginning of the event's id, and the end of the endpoint's.
    siblings = [other for other in others if other[:_DELIVERY_EVENT] == text[:_DELIVERY_EVENT]]
    strangers = [other for other in others if other[:_DELIVERY_EVENT] != text[:_DELIVERY_EVENT]]
    ending = max(_ENDING, 1 + max(_shared(text[::-1], other[::-1]) for other in siblings))
    beginning = max(BEGINNING, 1 + max((_shared(text, other) for other in strangers), default=0))
    return f"{text[:beginning]}{BETWEEN}{text[-ending:]}"


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def distance(instant: str, now_ms: int | None = None) -> str:
    """How far an instant is from now: `in 4 min`, `3 h ago`, `now`."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    try:
        seconds = round((parse_instant(instant) - now_ms) / 1000)
    except ValueError:
        return instant
    for size, unit in _UNITS:
        if abs(seconds) >= size:
            count = abs(seconds) // size
            return f"in {count} {unit}" if seconds > 0 else f"{count} {unit} ago"
    return "now"
