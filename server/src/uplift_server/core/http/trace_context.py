"""Trace context: the `traceparent` header (W3C Trace Context), and trace IDs derived from event IDs.

The server derives the IDs of an event's span from the event ID, because attempts can happen long after the event and in
another process. The server stores only the sender's trace context, if any.
"""

import hashlib
import re
from typing import Final, NamedTuple

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_INVALID_VERSION: Final = "ff"
_FIRST_VERSION: Final = "00"
_FORM_CHARACTERS: Final = 55
"""Length of a header in the first version."""
_SAMPLED: Final = 1


class TraceContext(NamedTuple):
    """A reference to a span: its trace ID and its span ID."""

    trace_id: int
    span_id: int
    sampled: bool
    """Whether programs record the trace. The program that starts the trace sets this flag."""


def parse_traceparent(text: str) -> TraceContext | None:
    """Parse a `traceparent` header. Return None if the header is not valid."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace, span, flags, rest = found.groups()
    # Only versions after the first may have more parts.
    if version == _INVALID_VERSION or (version == _FIRST_VERSION and rest is not None):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED)) if trace_id and span_id else None


def without_extensions(text: str) -> str | None:
    """Return a `traceparent` header in the first version of its form. Return None if the header is not valid.

    Later versions may add any text. Stored events must not contain it, because its length has no limit.
    """
    return None if parse_traceparent(text) is None else _FIRST_VERSION + text[len(_FIRST_VERSION) : _FORM_CHARACTERS]


def event_span(event_id: bytes, sender_span: TraceContext | None, *, sampled: bool) -> TraceContext:
    """Return the span of an event, in its sender's trace or in a new trace. `sampled` applies only to a new trace.

    Samplers use the last bytes of a trace ID. A UUID has constant bits in these bytes, so this function hashes the
    event ID.
    """
    digest = hashlib.sha256(event_id).digest()
    span_id = int.from_bytes(digest[16:24])
    if sender_span is not None:
        return TraceContext(sender_span.trace_id, span_id, sender_span.sampled)
    return TraceContext(int.from_bytes(digest[:16]), span_id, sampled)
