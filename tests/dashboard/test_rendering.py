"""Template filters."""

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest

from uplift_server.dashboard import rendering


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0 ms"), (1.23, "1.2 ms"), (12.6, "13 ms"), (999, "999 ms"), (1_234, "1.2 s"), (61_000, "1 min 1 s")],
)
def test_short_durations(ms: float, text: str) -> None:
    assert rendering.span_ms(ms) == text


def test_long_latencies_are_not_distinguished() -> None:
    texts = [rendering.latency(ms) for ms in (None, 12, 14_900, 15_000)]
    assert texts == ["\u2013", "12 ms", "14.9 s", "15.0 s or more"]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "\u2013"),
        (0.0, "0%"),
        (1.0, "100%"),
        (0.99999, "99.9%"),
        (0.00001, "0.1%"),
        (0.5, "50.0%"),
    ],
)
def test_percentages_are_not_rounded_to_0_or_100(share: float | None, text: str) -> None:
    assert rendering.percent(share) == text


def test_long_ids_are_shortened_in_the_middle() -> None:
    assert rendering.shortened("ep_short") == "ep_short"
    assert rendering.shortened("ep_0197f0c2aaaaaaaaaaaaaaaaaaaabcde") == "ep_0197f0c2aa…bcde"


def test_json_is_indented_and_control_characters_are_replaced() -> None:
    assert rendering.pretty(b'{"a":[1]}') == '{\n  "a": [\n    1\n  ]\n}'
    assert rendering.pretty(b"\x1b[31mno\xff") == "?[31mno\ufffd"
    assert rendering.pretty("[" * 100_000) == "[" * 100_000


def test_json_is_not_indented_if_that_is_too_large() -> None:
    wide = "[" * 60 + ",".join("0" * 100_000) + "]" * 60
    assert rendering.pretty(wide) == wide
    assert len(rendering.pretty(json.dumps(list(range(10_000))))) > 60_000


def test_json_numbers_keep_their_notation() -> None:
    assert rendering.pretty('{"a":1.50,"b":12345678901234567890,"c":1e400}').split() == [
        *("{", '"a":', "1.50,", '"b":', "12345678901234567890,", '"c":', "1e400", "}"),
    ]


def test_timestamps_in_sentences_become_time_elements() -> None:
    rendered = rendering.with_times("Due at 2020-11-25T21:46:37.062Z, <b> or 2026-99-99T99:99:99.000Z.")
    time = '<time datetime="2020-11-25T21:46:37.062Z" title="Nov 25, 2020, 21:46:37 UTC">Nov 25, 2020, 21:46</time>'
    assert rendered == f"Due at {time}, &lt;b&gt; or 2026-99-99T99:99:99.000Z."


def test_dotted_names_can_break_at_dots() -> None:
    assert rendering.breakable("a.b.<c>") == "a.<wbr>b.<wbr>&lt;c&gt;"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h.example/a/b?secret=1", "https://h.example/<wbr>a/<wbr>b"),
        ("https://h.example/a-b/c", 'https://h.example/<wbr><span class="unbroken">a-b/</span><wbr>c'),
        ("https://h.example//<b>/", "https://h.example/<wbr>/<wbr>&lt;b&gt;/"),
        (f"https://h.example/{'x' * 50}", f"https://h.example/<wbr>{'x' * 40}<wbr>{'x' * 10}"),
    ],
)
def test_urls_can_break_after_separators_and_in_long_parts(text: str, shown: str) -> None:
    assert rendering.url(text) == shown


def test_form_fields_have_timestamps_without_an_offset() -> None:
    assert rendering.moment(1_764_000_000_999) == "2025-11-24T16:00:00"
    assert rendering.moment(None) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s ago"),
        (59, "59 s ago"),
        (200, "3 min ago"),
        (-240, "in 4 min"),
        (5 * 3600, "5 h ago"),
        (6 * 86_400, "6 d ago"),
        (8 * 86_400, "Nov 24"),
        (200 * 86_400, "Nov 24, 2025"),
    ],
)
def test_times_near_now_are_relative(seconds: int, text: str) -> None:
    at = 1_764_000_000_000
    assert rendering.ago(at, at + seconds * 1000) == text


def test_old_timestamps_include_the_year() -> None:
    at = 1_764_000_000_000
    assert rendering.clock(at) == "Nov 24, 2025, 16:00:00"
    assert rendering.short_clock(at, at + 1000) == "Nov 24, 16:00:00"
    assert rendering.short_clock(at, at + 200 * 86_400_000) == "Nov 24, 2025, 16:00"
    assert rendering.instant(1_764_000_000_000) == "2025-11-24T16:00:00.000Z"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("made by `serve`", "made by <code>serve</code>"),
        ("`<b>` and `c`", "<code>&lt;b&gt;</code> and <code>c</code>"),
        ("<i>", "&lt;i&gt;"),
        ("one ` alone <i>", "one ` alone &lt;i&gt;"),
    ],
)
def test_text_in_backticks_is_code(text: str, html: str) -> None:
    assert rendering.with_code(text) == html


def test_rendering_a_long_page_does_not_block_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    template = rendering._environment().from_string("{% for number in numbers %}{{ number }},{% endfor %}")
    monkeypatch.setattr(rendering, "_template", lambda _name: template)
    turns = SimpleNamespace(count=0)

    async def render_and_count() -> None:
        page = asyncio.ensure_future(rendering.render("long", {"numbers": range(200_000)}))
        while not page.done():
            turns.count += 1
            await asyncio.sleep(0)
        assert (await page).endswith("199998,199999,")

    # The browser's event loop runs in this thread.
    thread = threading.Thread(target=asyncio.run, args=(render_and_count(),))
    thread.start()
    thread.join()
    assert turns.count > 10
