"""Charts as SVG. Colors come from CSS classes, so charts follow the light and dark themes.

Each chart has a label for screen readers, and a title with the values of each column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from uplift_server.dashboard.words import count

WIDTH: Final = 720
HEIGHT: Final = 160
SPARK_WIDTH: Final = 120
SPARK_HEIGHT: Final = 28
BAR_HEIGHT: Final = 8
_GAP: Final = 0.2
"""The space between columns, as a fraction of a column's width."""
_STEPS: Final = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a column. `kind` is the CSS class of its color."""

    name: str
    kind: str
    value: float


@dataclass(frozen=True, slots=True)
class Column:
    """One time bucket of a chart."""

    label: str
    parts: tuple[Part, ...]

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return sum(part.value for part in self.parts)

    @property
    def title(self) -> str:
        """The values as text."""
        told = ", ".join(f"{count(part.value)} {part.name}" for part in self.parts if part.value)
        return f"{self.label}: {told or 'none'}"


@dataclass(frozen=True, slots=True)
class Line:
    """A series with one value per time bucket, or None for a bucket without a value."""

    name: str
    kind: str
    values: tuple[float | None, ...]


def columns(given: Sequence[Column], label: str) -> Markup:
    """Return stacked columns, the first part at the bottom."""
    top = ceiling(max((column.total for column in given), default=0))
    each = WIDTH / max(len(given), 1)
    drawn = []
    for number, column in enumerate(given):
        drawn.append(f"<g><title>{escape(column.title)}</title>{_target(number * each, each)}")
        y = float(HEIGHT)
        for part in column.parts:
            if part.value > 0:
                height = max(1.0, part.value / top * HEIGHT)
                y -= height
                drawn.append(_rect(number * each + each * _GAP / 2, y, each * (1 - _GAP), height, part.kind))
        drawn.append("</g>")
    return _chart("".join(drawn), label, count(top))


def lines(labels: Sequence[str], given: Sequence[Line], label: str, *, limit: float | None = None) -> Markup:
    """Return lines of values in ms. The chart shows `limit` as a line if the values reach a third of it."""
    highest = max((value for line in given for value in line.values if value is not None), default=0)
    top = ceiling(max(highest, limit or 0) if limit is not None and highest * 3 >= limit else highest)
    each = WIDTH / max(len(labels), 1)
    drawn = []
    if limit is not None and limit <= top:
        drawn.append(f'<line class="limit" x1="0" x2="{WIDTH}" y1="{_y(limit, top)}" y2="{_y(limit, top)}"/>')
    for line in given:
        drawn.extend(_paths(line, each, top))
    for number, name in enumerate(labels):
        told = ", ".join(
            f"{line.name} {line.values[number]:.0f} ms" for line in given if line.values[number] is not None
        )
        title = f"{name}: {told or 'no attempts'}"
        drawn.append(f"<g><title>{escape(title)}</title>{_target(number * each, each)}</g>")
    return _chart("".join(drawn), label, f"{count(top)} ms")


def sparkline(given: Sequence[Column], label: str) -> Markup:
    """Return small stacked columns for a table row."""
    top = max((column.total for column in given), default=0) or 1
    each = SPARK_WIDTH / max(len(given), 1)
    drawn = []
    for number, column in enumerate(given):
        y = float(SPARK_HEIGHT)
        for part in column.parts:
            if part.value > 0:
                height = max(1.0, part.value / top * (SPARK_HEIGHT - 1))
                y -= height
                drawn.append(_rect(number * each, y, each * 0.8, height, part.kind))
    return Markup(  # noqa: S704 - contains only numbers, constant names and escaped text
        f'<svg class="spark" role="img" aria-label="{escape(label)}" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}"'
        f' width="{SPARK_WIDTH}" height="{SPARK_HEIGHT}"><path class="axis" d="M0 {SPARK_HEIGHT - 0.5}H{SPARK_WIDTH}"/>'
        f"{''.join(drawn)}</svg>"
    )


def bar(given: Sequence[Part], label: str) -> Markup:
    """Return a horizontal bar. The width of each part is its share of the total."""
    whole = sum(part.value for part in given) or 1
    x, drawn = 0.0, []
    for part in given:
        width = part.value / whole * WIDTH
        drawn.append(
            f'<rect class="{part.kind}" x="{x:.1f}" y="0" width="{width:.1f}" height="{BAR_HEIGHT}">'
            f"<title>{escape(part.name)}: {count(part.value)}</title></rect>"
        )
        x += width
    return Markup(  # noqa: S704 - contains only numbers, constant names and escaped text
        f'<svg class="bar" role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {BAR_HEIGHT}"'
        f' preserveAspectRatio="none">{"".join(drawn)}</svg>'
    )


def ceiling(value: float) -> float:
    """Return a round number of at least `value`, for the top of an axis."""
    if value <= 1:
        return 1.0
    size = 10.0 ** (len(str(int(value))) - 1)
    return next(size * step for step in _STEPS if size * step >= value)


def _paths(line: Line, each: float, top: float) -> list[str]:
    """Return a line as paths. Missing values break the line; a single value is a dot."""
    found: list[str] = []
    points: list[str] = []
    for number, value in enumerate([*line.values, None]):
        if value is not None:
            points.append(f"{number * each + each / 2:.1f} {_y(value, top)}")
        elif points:
            path = "M" + "L".join(points) + ("h0.1" if len(points) == 1 else "")
            found.append(f'<path class="line {line.kind}" d="{path}"/>')
            points = []
    return found


def _y(value: float, top: float) -> str:
    return f"{HEIGHT - value / top * HEIGHT:.1f}"


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _target(x: float, width: float) -> str:
    """Return the invisible area that shows the title of a column on hover."""
    return f'<rect class="target" x="{x:.1f}" y="0" width="{width:.1f}" height="{HEIGHT}"/>'


def _chart(drawn: str, label: str, top: str) -> Markup:
    rules = "".join(f'<path class="rule" d="M0 {HEIGHT * part:.1f}H{WIDTH}"/>' for part in (0.0, 0.5))
    return Markup(  # noqa: S704 - contains only numbers, constant names and escaped text
        f'<div class="chart"><span class="top" aria-hidden="true">{top}</span>'
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
        f'{rules}<path class="axis" d="M0 {HEIGHT}H{WIDTH}"/>{drawn}</svg></div>'
    )
