"""Charts that compare the server with other webhook services: `python -m bench.peers` writes SVG files into docs/.

The figures were measured on one machine (docs/benchmarks.md, "Comparison"). If a figure is a range, its bar ends at
the middle of the range.
"""

from pathlib import Path
from typing import Final, NamedTuple

from bench.processes import ROOT
from bench.svg import COLORS, Drawing

_WIDTH: Final = 860


class Bar(NamedTuple):
    """One service with its lowest and highest measured value."""

    name: str
    low: int
    high: int

    @property
    def middle(self) -> float:
        """The middle of the range, which is the length of the bar."""
        return (self.low + self.high) / 2

    @property
    def label(self) -> str:
        """The value or the range."""
        return f"{self.low:,}" if self.low == self.high else f"{self.low:,}\N{EN DASH}{self.high:,}"


THROUGHPUT: Final = (
    Bar("Uplift Webhooks", 9_100, 9_660),
    Bar("Outpost 1.2, tuned", 2_350, 2_960),
    Bar("Outpost 1.2", 2_030, 2_030),
    Bar("Svix 1.100", 741, 741),
    Bar("Convoy 26.6", 150, 300),
)
PROCESSOR_TIME: Final = (
    Bar("Uplift Webhooks", 108, 114),
    Bar("Outpost 1.2, tuned", 586, 708),
    Bar("Outpost 1.2", 804, 804),
    Bar("Svix 1.100", 2_142, 2_142),
    Bar("Convoy 26.6", 6_900, 6_900),
)


def draw(bars: tuple[Bar, ...], title: str, file: Path) -> None:
    """Draw horizontal bars with labels."""
    left, right, top = 180, 120, 56
    longest = max(bar.middle for bar in bars)
    drawing = Drawing(_WIDTH, top + 34 * len(bars) + 12, title)
    drawing.text(20, 28, title, kind="strong")
    for index, bar in enumerate(bars):
        y = top + 34 * index
        length = bar.middle / longest * (_WIDTH - left - right)
        drawing.text(left - 12, y + 16, bar.name, anchor="end")
        drawing.box(left, y, length, 22, COLORS[0] if index == 0 else COLORS[4])
        drawing.text(left + length + 8, y + 16, bar.label, kind="strong")
    drawing.write(file)


if __name__ == "__main__":
    _DOCS: Final = ROOT / "docs"
    draw(THROUGHPUT, "Events per second, 64 connections (more is better)", _DOCS / "benchmarks-peers-throughput.svg")
    draw(PROCESSOR_TIME, "Processor time per event, µs (less is better)", _DOCS / "benchmarks-peers-cpu.svg")
