"""Lists on a terminal: what must be copied stays whole, and the rest makes room for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

_GAP: Final = 2
_CUT_LEAST: Final = 12
_FOLDED_LEAST: Final = 20
DROPPED_EARLY: Final = 4


@dataclass(frozen=True)
class Column:
    """One column of a list. `name` is the field it shows."""

    name: str
    heading: str
    gives: bool = False
    """Whether its text may be cut where a table would not fit a terminal."""
    folds: bool = False
    """Whether its text may be continued in the next line: it is made of words."""
    dropped: int = 0
    """Columns with more than 0 go, the highest first, where not even cut texts make a table fit.

    Those with `DROPPED_EARLY` and more go before any text is cut.
    """

    @property
    def least(self) -> int | None:
        """How many characters it may be cut or folded to; None: it stays whole, as an id must that is to be copied."""
        if self.folds:
            return _FOLDED_LEAST
        return _CUT_LEAST if self.gives else None


def draw(rows: Sequence[Mapping[str, Text]], columns: Sequence[Column], width: int) -> tuple[Table, int]:
    """Texts by the names of columns as a table, and how wide it is: more than `width` only where an id needs it."""
    widest = {each.name: max(cell_len(each.heading), *(row[each.name].cell_len for row in rows)) for each in columns}
    rooms = {each.name: min(widest[each.name], each.least or widest[each.name]) for each in columns}
    kept = list(columns)
    while _whole(kept, widest) > width and (early := [each for each in kept if each.dropped >= DROPPED_EARLY]):
        kept.remove(max(early, key=lambda each: each.dropped))
    while _whole(kept, rooms) > width and (droppable := [each for each in kept if each.dropped]):
        kept.remove(max(droppable, key=lambda each: each.dropped))
    left = max(0, width - _whole(kept, rooms))
    # Those that want least are served first, so that the others share what they leave.
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
    """How wide a table of these columns is."""
    return sum(widths[each.name] for each in columns) + _GAP * (len(columns) - 1)
