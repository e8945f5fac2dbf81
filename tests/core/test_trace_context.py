"""The `traceparent` header, and the spans of events."""

import pytest

from uplift_server.core.http.trace_context import TraceContext, event_span, parse_traceparent, without_extensions

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
IDS = (int(TRACE, 16), int(SPAN, 16))


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
    ],
)
def test_valid_traceparent_headers(text: str, sampled: bool) -> None:
    assert parse_traceparent(text) == TraceContext(*IDS, sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01.",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
    ],
)
def test_invalid_traceparent_headers(text: str) -> None:
    assert parse_traceparent(text) is None


def test_extensions_are_removed() -> None:
    first = f"00-{TRACE}-{SPAN}-01"
    assert without_extensions(first) == first
    assert without_extensions(f"cc-{TRACE}-{SPAN}-01-{'x' * 100_000}") == first
    assert without_extensions("x" * 100_000) is None


def test_each_event_has_its_own_stable_span() -> None:
    spans = [event_span(bytes([number]) * 16, None, sampled=True) for number in range(100)]

    assert spans == [event_span(bytes([number]) * 16, None, sampled=True) for number in range(100)]
    assert len({span.span_id for span in spans}) == len({span.trace_id for span in spans}) == 100
    assert all(0 < span.span_id < 2**64 and 0 < span.trace_id < 2**128 for span in spans)
    # The bytes that samplers use are evenly distributed.
    assert 30 < sum(span.trace_id % 2**56 < 2**55 for span in spans) < 70


@pytest.mark.parametrize("sampled", [True, False])
def test_an_event_is_in_the_trace_of_its_sender(sampled: bool) -> None:
    sender = TraceContext(*IDS, sampled)
    span = event_span(b"i" * 16, sender, sampled=not sampled)

    assert (span.trace_id, span.sampled) == (sender.trace_id, sampled)
    assert span.span_id == event_span(b"i" * 16, None, sampled=True).span_id != sender.span_id
    assert event_span(b"i" * 16, None, sampled=sampled).sampled is sampled
