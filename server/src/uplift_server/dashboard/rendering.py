"""Rendering of templates to escaped HTML, and the template filters."""

import asyncio
import re
import secrets
import shlex
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from uplift_server import __version__
from uplift_server.core import ids
from uplift_server.core.durations import SPANS, format_span
from uplift_server.core.endpoint_settings import ENDPOINT_SETTINGS
from uplift_server.core.operations.statistics import DURATION_BOUNDS_US
from uplift_server.core.own_data import metadata_of
from uplift_server.core.people.audit import without_query
from uplift_server.core.texts import printable
from uplift_server.core.timestamps import format_timestamp, parse_timestamp
from uplift_server.dashboard import charts
from uplift_server.dashboard.assets import url_of
from uplift_server.dashboard.auth_forms import AUTH_TYPES
from uplift_server.dashboard.filter_forms import filter_input
from uplift_server.dashboard.forms import ONCE_BYTES, ONCE_FIELD
from uplift_server.dashboard.words import OUTCOMES, count, day
from uplift_server.service.versions import version_of

ID_CHARACTERS_SHOWN: Final = 13
LATENCY_MS_MAX: Final = DURATION_BOUNDS_US[-1] / 1000
"""The largest percentile of attempt durations in statistics, in ms. Longer attempts count as this long."""
_URL_PART: Final = re.compile(r"(?:[^/?&]+:/{2})?[^/?&]{0,40}[/?&]?", re.DOTALL)
"""A part of a URL: the scheme with `://`, if any, up to 40 characters, and the separator after them.

More than 40 characters do not fit in a table column.
"""
PRETTY_LINES_MAX: Final = 20_000
_INSTANT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)")
TURN_SECONDS: Final = 0.0005
"""The maximum duration of a slice, in seconds. A slice is the work between two yields to the event loop."""
OTHERS_SECONDS: Final = 0.0002
"""If the event loop needs more than this many seconds to resume rendering, other tasks are busy."""
PAUSE_SECONDS: Final = 0.002
"""The pause between two slices while other tasks are busy, in seconds.

During the pause, the event loop runs several iterations for these tasks.
"""
YEAR_SHOWN_AFTER_MS: Final = 180 * 86_400_000
"""If a timestamp differs from now by this many ms or more, the page shows its year.

Keep the formats in sync with dashboard.js.
"""
DAY_SHOWN_AFTER_S: Final = 7 * 86_400
"""If a time differs from now by this many seconds or more, the page shows the date instead of the relative time."""


async def render(template: str, context: Mapping[str, Any]) -> str:
    """Render a template in slices, because rendering a whole page takes up to 20 ms.

    Between slices, the function yields to the event loop.
    """
    pieces = []
    turn_ends = 0.0
    for piece in _template(template).generate(context):
        pieces.append(piece)
        if (now := time.perf_counter()) >= turn_ends:
            await asyncio.sleep(0)
            if time.perf_counter() - now > OTHERS_SECONDS:
                await asyncio.sleep(PAUSE_SECONDS)
            turn_ends = time.perf_counter() + TURN_SECONDS
    return "".join(pieces)


def prepare() -> None:
    """Load the base templates. The function reads files, so call it outside the event loop."""
    _template("layout.html")


@cache
def _template(name: str) -> Template:
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "instant": instant,
        "clock": clock,
        "breakable": breakable,
        "url": url,
        "digest": digest,
        "with_times": with_times,
        "with_code": with_code,
        "moment": moment,
        "short_clock": short_clock,
        "ago": ago,
        "shortened": shortened,
        "span": format_span,
        "latency": latency,
        "span_ms": span_ms,
        "count": count,
        "percent": percent,
        "pretty": pretty,
        "argument": shlex.quote,
        "sentence_case": sentence_case,
        "options": lambda names: [(name, sentence_case(name)) for name in names],
        "lower_first": lower_first,
        "outcome": OUTCOMES.__getitem__,
        "printable": lambda text: printable(text, lines=True),
        "without_query": without_query,
        "metadata": metadata_of,
        "filter_text": filter_input,
        "version": version_of,
        "account_id": lambda value: ids.prefixed(ids.ACCOUNT, value),
        "endpoint_id": lambda value: ids.prefixed(ids.ENDPOINT, value),
        "event_id": ids.uuid_text,
        "key_id": lambda value: ids.prefixed(ids.KEY, value),
        "delivery_id": lambda delivery: ids.delivery_id(delivery.event_id, delivery.endpoint_id),
        "erasure_id": lambda value: ids.prefixed(ids.ERASURE, value),
        "rejected_event_id": lambda value: ids.prefixed(ids.REJECTED_EVENT, value),
        "replay_id": lambda value: ids.prefixed(ids.REPLAY, value),
    }
    environment.globals |= {"asset": url_of, "version": __version__, "charts": charts}
    environment.globals["endpoint_settings"] = ENDPOINT_SETTINGS
    environment.globals["auth_types"] = AUTH_TYPES
    environment.globals["latency_ms_max"] = LATENCY_MS_MAX
    environment.globals |= {"once_field": ONCE_FIELD, "once_text": lambda: secrets.token_hex(ONCE_BYTES)}
    environment.globals["p"] = environment.get_template("parts.html").module
    return environment


def instant(ms: int) -> str:
    """Format a timestamp (Unix ms) as ISO 8601."""
    return format_timestamp(ms)


def clock(ms: int) -> str:
    """Format a timestamp (Unix ms) for people, in UTC: `Nov 29, 2026, 14:08:09`."""
    at = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{at:%b} {at.day}, {at:%Y, %H:%M:%S}"


def breakable(name: str) -> Markup:
    """Return a dotted name with line break opportunities after the dots."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=\.)", name))


def url(text: str) -> Markup:
    """Return a URL as HTML, without its query.

    The browser breaks lines only after separators such as `/`, and within long parts.
    """
    parts = _URL_PART.findall(printable(without_query(text), lines=True))
    # Prevent line breaks after hyphens, which browsers would otherwise add.
    whole = Markup('<span class="unbroken">{}</span>')
    return Markup("<wbr>").join(whole.format(part) if "-" in part else escape(part) for part in parts if part)


def digest(text: str) -> str:
    """Return a short digest of a string for use as an element ID. The same string always has the same ID."""
    return f"{zlib.crc32(text.encode()):08x}"


def with_times(text: str) -> Markup:
    """Return text as HTML. Each ISO timestamp in the text becomes an element that shows the local time."""
    parts = _INSTANT.split(printable(text, lines=True))
    return Markup("").join(_time(part) if number % 2 else part for number, part in enumerate(parts))


def with_code(text: str) -> Markup:
    """Return text as HTML. The parts between backticks become code elements.

    If a backtick has no pair, keep all backticks.
    """
    parts = printable(text, lines=True).split("`")
    if len(parts) % 2 == 0:
        return escape("`".join(parts))
    marked = (Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts))
    return Markup("").join(marked)


def _time(text: str) -> Markup | str:
    try:
        at = parse_timestamp(text)
    except ValueError:
        # Text from a receiver can look like a timestamp without being valid.
        return text
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(text, clock(at), short_clock(at))


def moment(ms: int | None) -> str:
    """Format a timestamp (Unix ms) for a form field, in UTC. Return an empty string for None."""
    return "" if ms is None else datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def short_clock(ms: int, now_ms: float | None = None) -> str:
    """Format a timestamp (Unix ms) in UTC: `Nov 29, 14:08:09`, or `Nov 29, 2024, 14:08` if it is not recent.

    dashboard.js replaces the text with local time.
    """
    now_ms = time.time() * 1000 if now_ms is None else now_ms
    at = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{day(ms)}, {at:%H:%M:%S}" if abs(now_ms - ms) < YEAR_SHOWN_AFTER_MS else f"{day(ms)}, {at:%Y, %H:%M}"


def ago(ms: int, now_ms: float | None = None) -> str:
    """Format a timestamp (Unix ms) relative to now: `3 min ago`, `in 2 h`.

    If the timestamp differs from now by DAY_SHOWN_AFTER_S or more, return the date.
    """
    now_ms = time.time() * 1000 if now_ms is None else now_ms
    apart = abs(now_ms - ms) // 1000
    if apart >= DAY_SHOWN_AFTER_S:
        is_recent = apart * 1000 < YEAR_SHOWN_AFTER_MS
        return day(ms) if is_recent else f"{day(ms)}, {datetime.fromtimestamp(ms // 1000, UTC).year}"
    size, unit = next((each for each in SPANS if apart >= each[0]), SPANS[-1])
    text = f"{apart // size:.0f} {unit}"
    return f"in {text}" if ms > now_ms else f"{text} ago"


def sentence_case(text: str) -> str:
    """Return text with the first letter in upper case."""
    return text[:1].upper() + text[1:]


def lower_first(text: str) -> str:
    """Return text with the first letter in lower case."""
    return text[:1].lower() + text[1:]


def shortened(text: str) -> str:
    """Replace the middle of a long ID with an ellipsis. Return a short ID unchanged."""
    return text if len(text) <= ID_CHARACTERS_SHOWN + 5 else f"{text[:ID_CHARACTERS_SHOWN]}…{text[-4:]}"


def span_ms(ms: float) -> str:
    """Format a short duration: `12 ms`, `1.2 s`, `3 min 4 s`."""
    if ms < 1000:
        return f"{ms:.0f} ms" if ms >= 10 or ms == int(ms) else f"{ms:.1f} ms"
    return f"{ms / 1000:.1f} s" if ms < 60_000 else format_span(ms / 1000)


def latency(ms: float | None) -> str:
    """Format a percentile of the attempt durations, and None as a dash. Long durations are not distinguished."""
    if ms is None:
        return "\u2013"
    return span_ms(ms) if ms < LATENCY_MS_MAX else f"{span_ms(ms)} or more"


def percent(share: float | None) -> str:
    """Format a share from 0 to 1 as `99.2%`, and None as a dash. Only 0 becomes 0%, and only 1 becomes 100%."""
    if share is None:
        return "\u2013"
    if 0 < share < 1:
        return f"{min(99.9, max(0.1, share * 100)):.1f}%"
    return f"{share * 100:.0f}%"


def pretty(text: str | bytes) -> str:
    """Return text without control characters. If the text is JSON, indent it without changing its numbers.

    JSON that would have more than about PRETTY_LINES_MAX lines is not indented.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    # Estimate the lines first: indenting 256 KiB of brackets and commas would produce 17 MiB and take 200 ms.
    lines = text.count(",") + 2 * (text.count("[") + text.count("{"))
    with suppress(ValueError, RecursionError):
        if lines <= PRETTY_LINES_MAX:
            text = msgspec.json.format(text, indent=2)
    return printable(text, lines=True)
