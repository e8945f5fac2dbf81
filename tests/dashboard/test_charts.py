"""Charts: shapes and labels."""

import re
from xml.etree import ElementTree

import pytest

from uplift_server.core.operations.statistics import HOUR_MS, MINUTE_MS
from uplift_server.dashboard import charts
from uplift_server.dashboard.charts import Column, Line, Part, Slot


def hours(*pairs: tuple[int, int]) -> list[Column]:
    return [
        Column(Slot(number * HOUR_MS, HOUR_MS), (Part("delivered", "delivered", good), Part("failed", "failed", bad)))
        for number, (good, bad) in enumerate(pairs)
    ]


def slots(number: int, length_ms: int = HOUR_MS) -> list[Slot]:
    return [Slot(each * length_ms, length_ms) for each in range(number)]


def rects(svg: str, kind: str) -> list[dict[str, float]]:
    found = re.findall(rf'<rect class="{kind}" x="(.+?)" y="(.+?)" width="(.+?)" height="(.+?)"/>', svg)
    return [dict(zip("xywh", map(float, each), strict=True)) for each in found]


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (1, 1), (2, 2), (3, 5), (7, 10), (10, 10), (11, 20), (21, 25), (26, 50), (9_001, 10_000)]
)
def test_an_axis_ends_at_a_round_number(value: float, top: float) -> None:
    assert charts.ceiling(value) == top


def test_column_parts_are_stacked_at_their_heights() -> None:
    svg = charts.columns(hours((6, 4), (0, 0), (5, 0)), "Deliveries")
    ElementTree.fromstring(svg)
    good, bad = rects(svg, "delivered"), rects(svg, "failed")
    assert [each["h"] for each in good] == [95, 79]
    assert bad[0]["h"] == 63
    assert bad[0]["y"] + bad[0]["h"] == good[0]["y"] - 1
    assert good[0]["y"] + good[0]["h"] == charts.HEIGHT - 1


def test_a_small_part_of_a_large_column_is_visible() -> None:
    svg = charts.columns(hours((100_000, 1)), "Deliveries")
    assert rects(svg, "failed")[0]["h"] == 1


def test_columns_have_titles_with_escaped_labels() -> None:
    first, second = slots(2)
    svg = charts.columns([Column(first, (Part("<b>", "delivered", 3),)), Column(second, ())], "<script>")
    ElementTree.fromstring(svg)
    assert "<title>Jan 1, 00:00 to 01:00 UTC: 3 &lt;b&gt;</title>" in svg
    assert "<title>Jan 1, 01:00 to 02:00 UTC: none</title>" in svg
    assert "<script>" not in svg


def test_large_numbers_are_shown_in_full() -> None:
    svg = charts.columns(hours((1_234_567, 0)), "Deliveries")
    assert "1,234,567 delivered" in svg
    assert ">2,000,000</span>" in svg


@pytest.mark.parametrize(
    ("number", "length_ms", "rate", "labels"),
    [
        (60, MINUTE_MS, "per minute", ["00:00", "00:10", "00:20", "00:30", "00:40", "00:50"]),
        (24, HOUR_MS, "per hour", ["00:00", "04:00", "08:00", "12:00", "16:00", "20:00"]),
        (28, 6 * HOUR_MS, "per 6 hours", ["Jan 1", "Jan 2", "Jan 3", "Jan 4", "Jan 5", "Jan 6", "Jan 7"]),
        (30, 24 * HOUR_MS, "per day", ["Jan 1", "Jan 6", "Jan 11", "Jan 16", "Jan 21", "Jan 26"]),
    ],
)
def test_both_axes_have_labels(number: int, length_ms: int, rate: str, labels: list[str]) -> None:
    parts = (Part("delivered", "delivered", 80),)
    svg = charts.columns([Column(slot, parts) for slot in slots(number, length_ms)], "Deliveries")
    assert re.findall(r"<time [^>]*>([^<]*)</time>", svg) == labels
    assert re.findall(r"<span>(\d+)</span>", svg) == ["100", "50", "0"]
    assert f">{rate}</p>" in svg


def test_a_line_has_gaps_at_missing_values() -> None:
    line = Line("p95", "p95", (10.0, None, 20.0, 30.0))
    svg = charts.lines(slots(4), [line], "Latency")
    ElementTree.fromstring(svg)
    paths = re.findall(r'<path class="line p95" d="(.+?)"', svg)
    assert len(paths) == 2
    assert paths[0].endswith("h0.1")
    assert "<title>Jan 1, 01:00 to 02:00 UTC: no attempts</title>" in svg
    assert "<title>Jan 1, 02:00 to 03:00 UTC: p95 20 ms</title>" in svg
    assert ">50 ms</span>" in svg


def test_a_limit_is_drawn_only_within_the_scale() -> None:
    near = charts.lines(slots(1), [Line("p95", "p95", (9_000.0,))], "Latency", limit=15_000)
    far = charts.lines(slots(1), [Line("p95", "p95", (90.0,))], "Latency", limit=15_000)
    assert 'class="limit"' in near
    assert 'class="limit"' not in far
    assert ">100 ms<" in far


def test_charts_without_data_are_valid() -> None:
    for svg in (charts.columns([], "x"), charts.lines([], [], "x"), charts.sparkline([], "x")):
        ElementTree.fromstring(svg)


def test_a_sparkline_is_scaled_to_its_highest_hour() -> None:
    svg = charts.sparkline(hours((10, 0), (5, 5)), "24 hours")
    assert rects(svg, "delivered")[0]["h"] == charts.SPARK_HEIGHT - 1
    assert len(rects(svg, "failed")) == 1


def test_a_bar_divides_its_width_and_labels_each_part() -> None:
    svg = charts.bar([Part("<DNS>", "dns", 1), Part("first byte", "wait", 3)], "Timings")
    ElementTree.fromstring(svg)
    assert [float(each) for each in re.findall(r'width="([\d.]+)"', svg)] == [charts.WIDTH / 4, charts.WIDTH * 3 / 4]
    assert "<title>&lt;DNS&gt;: 1</title>" in svg
    ElementTree.fromstring(charts.bar([Part("first byte", "wait", 0)], "Timings"))
