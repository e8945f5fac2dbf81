"""The events and attempts that are traced. This module does not import OpenTelemetry, which is an optional package."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final, NamedTuple, Protocol

from uplift_server.core.http.trace_context import TraceContext
from uplift_server.observe.attempt_log import AttemptLine

REMEDY_WITHOUT_PACKAGES: Final = "install the extra `otel` (uplift-webhooks-server[otel]), or remove the setting"
"""How to fix missing OpenTelemetry packages."""
TRACEPARENT: Final[ContextVar[str | None]] = ContextVar("traceparent", default=None)
"""The valid `traceparent` header of the current request, without extensions, or None."""


class AcceptedEvent(NamedTuple):
    """An accepted event. Times are Unix ns."""

    id: bytes
    type: str
    account: str
    began_at: int
    ended_at: int
    sender_span: TraceContext | None
    """The span of the sender's request, if the request had a trace context."""
    repeated: bool
    """Whether the event repeats an earlier event, which the server had already accepted."""


class EndedAttempt(NamedTuple):
    """An attempt that has ended, and the span of the client that sent the event."""

    line: AttemptLine
    sender_span: TraceContext | None


class Tracer(Protocol):
    """The interface that creates and exports spans."""

    def record(self, events: Sequence[AcceptedEvent], attempts: Sequence[EndedAttempt]) -> None:
        """Create spans and queue them.

        The call is slow. Call it in a thread, and do not run two calls at the same time.
        """

    def close(self) -> None:
        """Send the queued spans. The call can take a long time."""
