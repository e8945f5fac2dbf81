"""Charts that compare the server with other webhook services: `python -m bench.peers` writes SVG files into docs/.

The figures were measured on one machine (docs/benchmarks.md, "Comparison"). A range is drawn as its middle.
"""

from pathlib import Path
from typing import Final, NamedTuple

from bench.processes import ROOT
from bench.svg import COLOURS, Drawing

_WIDTH: Final = 860


class Bar(NamedTuple):
    """One service: the value that sets the length, and its label."""

    name: str
    value: float
    label: str


THROUGHPUT: Final = (
    Bar("Uplift Webhooks", 9_380, "9,100–9,660"),
    Bar("Outpost 1.2, tuned", 2_655, "2,350–2,960"),
    Bar("Outpost 1.2", 2_030, "2,030"),
    Bar("Svix 1.100", 741, "741"),
    Bar("Convoy 26.6", 225, "150–300"),
)
PROCESSOR_TIME: Final = (
    Bar("Uplift Webhooks", 111, "108–114"),
    Bar("Outpost 1.2, tuned", 647, "586–708"),
    Bar("Outpost 1.2", 804, "804"),
    Bar("Svix 1.100", 2_142, "2,142"),
    Bar("Convoy 26.6", 6_900, "6,900"),
)


def draw(bars: tuple[Bar, ...], title: str, file: Path) -> None:
    """Draw horizontal bars with labels."""
    left, right, top = 180, 120, 56
    longest = max(bar.value for bar in bars)
    drawing = Drawing(_WIDTH, top + 34 * len(bars) + 12, title)
    drawing.text(20, 28, title, kind="strong")
    for index, bar in enumerate(bars):
        y = top + 34 * index
        length = bar.value / longest * (_WIDTH - left - right)
        drawing.text(left - 12, y + 16, bar.name, anchor="end")
        drawing.box(left, y, length, 22, COLOURS[0] if index == 0 else COLOURS[4])
        drawing.text(left + length + 8, y + 16, bar.label, kind="strong")
    drawing.write(file)


if __name__ == "__main__":
    draw(THROUGHPUT, "Events per second, 64 connections (more is better)", ROOT / "docs/benchmarks-peers-throughput.svg")
    draw(PROCESSOR_TIME, "Processor time per event, µs (less is better)", ROOT / "docs/benchmarks-peers-cpu.svg")
