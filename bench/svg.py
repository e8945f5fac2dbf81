"""A small SVG writer: text, lines and boxes, in colors that follow the reader's light or dark theme."""

from html import escape
from pathlib import Path
from typing import Final

# Okabe and Ito's palette, for all kinds of color vision.
COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#1f2933}.quiet{fill:#66727f}.strong{font-weight:600}"
    ".grid{stroke:#d5dae0;stroke-width:1}.page{fill:#ffffff}"
    "@media (prefers-color-scheme:dark){text{fill:#e4e7eb}.quiet{fill:#9aa5b1}.grid{stroke:#3e4c59}.page{fill:#15191e}}"
)


class Drawing:
    """Shapes of one SVG file."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._width = width
        self._height = height
        self._title = title
        self._shapes: list[str] = []

    def text(self, x: float, y: float, words: str, *, kind: str = "", anchor: str = "start", color: str = "") -> None:
        """Add text; `anchor` is `start`, `middle` or `end`."""
        fill = f' style="fill:{color}"' if color else ""
        self._shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}"{fill}>{escape(words)}</text>'
        )

    def grid(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Add a grid line."""
        self._shapes.append(f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def box(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Add a bar."""
        self._shapes.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" rx="2" fill="{color}"/>'
        )

    def curve(self, points: list[tuple[float, float]], color: str) -> None:
        """Add a line through marked points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._shapes.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        self._shapes += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in points]

    def write(self, file: Path) -> None:
        """Write the file, with a title for screen readers."""
        size = f'width="{self._width}" height="{self._height}" viewBox="0 0 {self._width} {self._height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{escape(self._title)}</title>'
        page = f'<style>{_STYLE}</style><rect class="page" width="100%" height="100%"/>'
        file.write_text("\n".join([head, page, *self._shapes, "</svg>", ""]), encoding="utf-8")
