"""Traces: the header by which they are handed on (W3C Trace Context), and the ids that follow from an event's.

An attempt is made long after its event was accepted, perhaps by another process. So the ids of an event's span are not
remembered but made from the event's id; what is remembered is only the trace of whoever sent it, where there is one.
"""

import hashlib
import re
from typing import Final, NamedTuple

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_INVALID_VERSION: Final = "ff"
_FIRST_VERSION: Final = "00"
_SAMPLED: Final = 1


class TraceContext(NamedTuple):
    """A span, as others refer to it."""

    trace_id: int
    span_id: int
    sampled: bool
    """Whether whoever began the trace wants it to be recorded."""


def parse_traceparent(text: str) -> TraceContext | None:
    """The span a `traceparent` names; None for what is none."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace, span, flags, rest = found.groups()
    # Later versions may have more parts; this one has not.
    if version == _INVALID_VERSION or (version == _FIRST_VERSION and rest is not None):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED)) if trace_id and span_id else None


def event_span(event_id: bytes, sender_span: TraceContext | None, *, sampled: bool) -> TraceContext:
    """The span of an event: in its sender's trace, or in one of its own, of which `sampled` tells whether it counts.

    Samplers go by a trace's last bytes. An id has its time and its version among them, so they are mixed.
    """
    digest = hashlib.sha256(event_id).digest()
    span_id = int.from_bytes(digest[16:24])
    if sender_span is not None:
        return TraceContext(sender_span.trace_id, span_id, sender_span.sampled)
    return TraceContext(int.from_bytes(digest[:16]), span_id, sampled)
