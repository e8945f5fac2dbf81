"""Tables for terminals, with short IDs and timestamps. The columns share the available width."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

BEGINNING: Final = 12
"""Minimum number of characters at the start of a shortened ID, not counting the prefix.

In an ID, the first 12 characters after the prefix encode the creation time in milliseconds.
"""
BETWEEN: Final = ".."
"""Text between the start and the end of a shortened ID."""
DROPPED_EARLY: Final = 4
_DELIVERY_EVENT: Final = 32
"""Length of the event ID at the start of a delivery ID."""
_ENDING: Final = 4
_GAP: Final = 2
_CUT_LEAST: Final = 12
_FOLDED_LEAST: Final = 20
_PREFIX: Final = re.compile(r"^[a-z]+_")
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class Column:
    """One column of a table. `name` is the field that the column shows."""

    name: str
    heading: str
    kind: Literal["text", "id", "timestamp"] = "text"
    """The kind of the column's values. On terminals, `id` and `timestamp` have a short form."""
    gives: bool = False
    """Whether the text may be truncated if the table does not fit."""
    folds: bool = False
    """Whether a long text may continue on the next line."""
    dropped: int = 0
    """Rank of the column. If the table does not fit even with truncated text, the highest-rank column is omitted first.

    A column with rank 0 is never omitted. Columns with rank `DROPPED_EARLY` or higher are omitted before any text is
    truncated.
    """

    @property
    def least(self) -> int | None:
        """Minimum width in characters. None if the text is never truncated."""
        if self.folds:
            return _FOLDED_LEAST
        return _CUT_LEAST if self.gives else None

    def shorten(self, texts: list[str]) -> list[str]:
        """Return the column's texts with relative timestamps and short IDs. Other texts stay unchanged."""
        if self.kind == "timestamp":
            return [text and distance(text) for text in texts]
        if self.kind == "id":
            short = short_ids([text for text in dict.fromkeys(texts) if text])
            return [short.get(text, text) for text in texts]
        return texts


def draw(rows: Sequence[Mapping[str, Text]], columns: Sequence[Column], width: int) -> tuple[Table, int]:
    """Return a table and its width in characters.

    Each row maps column names to cell texts. The table exceeds `width` only if the minimum widths of its columns
    require it.
    """
    widest = {each.name: max(cell_len(each.heading), *(row[each.name].cell_len for row in rows)) for each in columns}
    rooms = {each.name: min(widest[each.name], each.least or widest[each.name]) for each in columns}
    kept = list(columns)
    while _whole(kept, widest) > width and (early := [each for each in kept if each.dropped >= DROPPED_EARLY]):
        kept.remove(max(early, key=lambda each: each.dropped))
    while _whole(kept, rooms) > width and (droppable := [each for each in kept if each.dropped]):
        kept.remove(max(droppable, key=lambda each: each.dropped))
    left = max(0, width - _whole(kept, rooms))
    # Start with the columns that need the least additional width, so that the other columns share the rest.
    wanting = sorted(kept, key=lambda each: widest[each.name] - rooms[each.name])
    for number, each in enumerate(wanting):
        more = min(widest[each.name] - rooms[each.name], left // (len(wanting) - number))
        rooms[each.name] += more
        left -= more
    table = Table(box=None, pad_edge=False, header_style="bold")
    for each in kept:
        overflow: Literal["fold", "ellipsis"] = "fold" if each.folds else "ellipsis"
        table.add_column(each.heading, width=rooms[each.name], overflow=overflow, no_wrap=not each.folds)
    for row in rows:
        table.add_row(*(row[each.name] for each in kept))
    return table, _whole(kept, rooms)


def _whole(columns: Sequence[Column], widths: Mapping[str, int]) -> int:
    """Return the width of a table in characters."""
    return sum(widths[each.name] for each in columns) + _GAP * (len(columns) - 1)


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """Return a unique short form of each ID, without the prefix. `find` accepts the short forms."""
    bare = {each: _PREFIX.sub("", each) for each in ids}
    return {each: _short(text, [other for other in bare.values() if other != text]) for each, text in bare.items()}


def _short(text: str, others: Sequence[str]) -> str:
    shared = max((_shared(text, other) for other in others), default=0)
    if shared < _DELIVERY_EVENT:
        return text[: max(BEGINNING, shared + 1)]
    # The IDs of an event's deliveries differ only at the end, in the endpoint's ID.
    siblings = [other for other in others if other[:_DELIVERY_EVENT] == text[:_DELIVERY_EVENT]]
    strangers = [other for other in others if other[:_DELIVERY_EVENT] != text[:_DELIVERY_EVENT]]
    ending = max(_ENDING, 1 + max(_shared(text[::-1], other[::-1]) for other in siblings))
    beginning = max(BEGINNING, 1 + max((_shared(text, other) for other in strangers), default=0))
    return f"{text[:beginning]}{BETWEEN}{text[-ending:]}"


def _shared(one: str, other: str) -> int:
    """Return the length of the common prefix of two strings."""
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def distance(timestamp: str, now_ms: int | None = None) -> str:
    """Return a timestamp relative to now: `in 4 min`, `3 h ago`, `now`."""
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    try:
        # Python 3.10 does not parse the suffix `Z`.
        at_ms = datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp() * 1000
    except ValueError:
        return timestamp
    seconds = round((at_ms - now_ms) / 1000)
    for size, unit in _UNITS:
        if abs(seconds) >= size:
            count = abs(seconds) // size
            return f"in {count} {unit}" if seconds > 0 else f"{count} {unit} ago"
    return "now"
