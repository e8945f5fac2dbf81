"""The events and attempts that are traced. This module does not import OpenTelemetry, which is optional."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final, NamedTuple, Protocol

from uplift_server.core.http.trace_context import TraceContext
from uplift_server.observe.attempt_log import AttemptLine

REMEDY_WITHOUT_PACKAGES: Final = "install the extra `otel` (uplift-webhooks-server[otel]), or remove the setting"
"""How to fix a missing OpenTelemetry package."""
TRACEPARENT: Final[ContextVar[str | None]] = ContextVar("traceparent", default=None)
"""The `traceparent` header of the current request."""


class AcceptedEvent(NamedTuple):
    """A stored event. Times are Unix ns."""

    id: bytes
    type: str
    account: str
    began_at: int
    ended_at: int
    sender_span: TraceContext | None
    """The sender's span, if its request had a trace context."""
    repeated: bool
    """Whether an earlier request had already stored the event."""


class EndedAttempt(NamedTuple):
    """An ended attempt, and the sender's span of its event."""

    line: AttemptLine
    sender_span: TraceContext | None


class Tracer(Protocol):
    """Creates and exports spans."""

    def record(self, events: Sequence[AcceptedEvent], attempts: Sequence[EndedAttempt]) -> None:
        """Create spans and queue them. Slow: call it in a thread, one call at a time."""

    def close(self) -> None:
        """Send the queued spans. The call can block for a long time."""
