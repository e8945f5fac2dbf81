"""What traces are made of, as whoever notes it hands it over; `observe.tracing` alone knows OpenTelemetry."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from uplift_server.core.http.trace_context import TraceContext
from uplift_server.observe.attempt_log import AttemptLine

REMEDY_WITHOUT_PACKAGES: Final = "install the server with its extra `otel` (uplift-webhooks-server[otel]), or remove it"
"""What to do where OpenTelemetry is not installed, and a variable asks for it."""


class AcceptedEvent(NamedTuple):
    """An event that was stored. Instants are Unix ns."""

    id: bytes
    type: str
    account: str
    began_at: int
    ended_at: int
    sender_span: TraceContext | None
    """The span it was sent in, where its sender told."""
    repeated: bool
    """Whether it had been stored before."""


class EndedAttempt(NamedTuple):
    """An attempt, and the span its event was sent in."""

    line: AttemptLine
    sender_span: TraceContext | None


class Tracer(Protocol):
    """Where spans go."""

    def record(self, events: Sequence[AcceptedEvent], attempts: Sequence[EndedAttempt]) -> None:
        """Make spans; they are sent later. Takes a while, so it is called in a thread, one call at a time."""

    def close(self) -> None:
        """Send what waits. Blocks, perhaps for long."""
