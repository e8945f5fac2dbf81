"""Charts as SVG. Colors come from CSS classes, so charts follow the light and dark themes.

Each chart has a label for screen readers. Except for sparklines and bars, each chart has labeled axes, and each time
bucket has a title that contains its values. Times are in UTC. dashboard.js converts them to the viewer's time zone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup, escape

from uplift_server.core.timestamps import format_timestamp
from uplift_server.dashboard.words import count, day

WIDTH: Final = 720
HEIGHT: Final = 160
SPARK_WIDTH: Final = 120
SPARK_HEIGHT: Final = 28
BAR_HEIGHT: Final = 8
_GAP: Final = 0.2
"""The space between two columns, as a fraction of the width of a time bucket."""
_STEPS: Final = (1, 2, 2.5, 5, 10)
_PART_GAP: Final = 1.0
"""The space between the parts of a column, in SVG units. The space separates parts that have similar colors."""
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS
_UNITS: Final = {_MINUTE_MS: "per minute", _HOUR_MS: "per hour", 6 * _HOUR_MS: "per 6 hours", _DAY_MS: "per day"}
_LABELS_MS: Final = {_MINUTE_MS: 10 * _MINUTE_MS, _HOUR_MS: 4 * _HOUR_MS, 6 * _HOUR_MS: _DAY_MS, _DAY_MS: 5 * _DAY_MS}
"""The interval between labels on the time axis for each bucket length, both in ms."""
_LABELS_END: Final = 0.95


@dataclass(frozen=True, slots=True)
class Slot:
    """A time bucket in a chart. `at` is its start (Unix ms)."""

    at: int
    length_ms: int

    @property
    def has_label(self) -> bool:
        """Whether the time axis has a label at the start of the bucket."""
        return self.at % _LABELS_MS.get(self.length_ms, self.length_ms) == 0

    @property
    def name(self) -> str:
        """The time range of the bucket in UTC, as text."""
        if self.length_ms >= _DAY_MS:
            return day(self.at)
        return f"{day(self.at)}, {_minute(self.at)} to {_minute(self.at + self.length_ms)} UTC"

    @property
    def label(self) -> Markup:
        """The bucket's label on the time axis."""
        by_day = self.length_ms > _HOUR_MS
        return Markup('<time datetime="{}" data-short="{}">{}</time>').format(
            format_timestamp(self.at), "day" if by_day else "minute", day(self.at) if by_day else _minute(self.at)
        )


@dataclass(frozen=True, slots=True)
class Part:
    """A colored part of a chart column or bar. `kind` is the CSS class that sets the color."""

    name: str
    kind: str
    value: float


@dataclass(frozen=True, slots=True)
class Column:
    """A stacked column for one time bucket."""

    slot: Slot
    parts: tuple[Part, ...]

    @property
    def total(self) -> float:
        """The sum of the column's parts."""
        return sum(part.value for part in self.parts)

    @property
    def title(self) -> str:
        """The column's time range and values, as text for its tooltip."""
        told = ", ".join(f"{count(part.value)} {part.name}" for part in self.parts if part.value)
        return f"{self.slot.name}: {told or 'none'}"


@dataclass(frozen=True, slots=True)
class Line:
    """A series with one value per time bucket, or None for a bucket without a value."""

    name: str
    kind: str
    values: tuple[float | None, ...]


def columns(given: Sequence[Column], label: str) -> Markup:
    """Return a chart with stacked columns. The first part of each column is at the bottom."""
    top = ceiling(max((column.total for column in given), default=0))
    each = WIDTH / max(len(given), 1)
    drawn = []
    for number, column in enumerate(given):
        drawn.append(_opened(column.slot, column.title, number * each, each))
        y = float(HEIGHT)
        for part in column.parts:
            if part.value > 0:
                height = max(1.0, part.value / top * HEIGHT)
                y -= height
                shown = height - _PART_GAP if height > 2 * _PART_GAP else height
                drawn.append(_rect(number * each + each * _GAP / 2, y, each * (1 - _GAP), shown, part.kind))
        drawn.append("</g>")
    return _chart("".join(drawn), label, top, [column.slot for column in given])


def lines(slots: Sequence[Slot], given: Sequence[Line], label: str, *, limit: float | None = None) -> Markup:
    """Return a line chart of values in ms.

    The chart shows `limit` as a horizontal line if the highest value is at least a third of `limit`.
    """
    highest = max((value for line in given for value in line.values if value is not None), default=0)
    top = ceiling(max(highest, limit or 0) if limit is not None and highest * 3 >= limit else highest)
    each = WIDTH / max(len(slots), 1)
    drawn = []
    if limit is not None and limit <= top:
        drawn.append(f'<line class="limit" x1="0" x2="{WIDTH}" y1="{_y(limit, top)}" y2="{_y(limit, top)}"/>')
    for line in given:
        drawn.extend(_paths(line, each, top))
    for number, slot in enumerate(slots):
        told = ", ".join(
            f"{line.name} {line.values[number]:.0f} ms" for line in given if line.values[number] is not None
        )
        title = f"{slot.name}: {told or 'no attempts'}"
        drawn.append(f"{_opened(slot, title, number * each, each)}</g>")
    return _chart("".join(drawn), label, top, slots, " ms")


def sparkline(given: Sequence[Column], label: str) -> Markup:
    """Return a small chart with stacked columns for a table row."""
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
    """Return a horizontal bar. The width of each part is proportional to its share of the total."""
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
    """Return a round number that is at least `value`, for the top of the value axis."""
    if value <= 1:
        return 1.0
    size = 10.0 ** (len(str(int(value))) - 1)
    return next(size * step for step in _STEPS if size * step >= value)


def _paths(line: Line, each: float, top: float) -> list[str]:
    """Return a line as SVG paths. The line has a gap for each missing value. A value between two gaps is a dot."""
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


def _opened(slot: Slot, title: str, x: float, width: float) -> str:
    """Return the start of a bucket's SVG group: the title, and an invisible area that shows the title on hover."""
    return (
        f'<g data-at="{slot.at}" data-length="{slot.length_ms}"><title>{escape(title)}</title>'
        f'<rect class="target" x="{x:.1f}" y="0" width="{width:.1f}" height="{HEIGHT}"/>'
    )


def _minute(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%H:%M")


def _chart(drawn: str, label: str, top: float, slots: Sequence[Slot], unit: str = "") -> Markup:
    rules = "".join(f'<path class="rule" d="M0 {HEIGHT * part:.1f}H{WIDTH}"/>' for part in (0.0, 0.5))
    ticks = "".join(f"<span>{count(value)}{unit}</span>" for value in (top, top / 2, 0))
    # Omit labels near the end of the axis, because they would not fit.
    last = len(slots) * _LABELS_END
    times = "".join(
        f"<span>{slot.label if slot.has_label and number < last else ''}</span>" for number, slot in enumerate(slots)
    )
    rate = _UNITS.get(slots[0].length_ms, "") if slots and not unit else ""
    return Markup(  # noqa: S704 - contains only numbers, constant names and escaped text
        f'<div class="chart"><p class="rate" aria-hidden="true">{rate}</p>'
        f'<div class="ticks" aria-hidden="true">{ticks}</div>'
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
        f'{rules}<path class="axis" d="M0 {HEIGHT}H{WIDTH}"/>{drawn}</svg>'
        f'<div class="times" aria-hidden="true">{times}</div></div>'
    )
