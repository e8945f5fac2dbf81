"""OpenTelemetry traces: a span for every accepted event, and a child span for each attempt.

The server imports this module only if traces are enabled. The module needs the packages in the extra `otel`. The SDK
reads the standard environment variables (headers, sampler, batches, timeouts, resource). Spans contain IDs, outcomes
and codes. They contain no bodies, and no URLs, because URLs can contain tokens.
"""

import os
import uuid
from collections.abc import Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from uplift_server import __version__
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.events.catalog import WEBHOOK_CREATED
from uplift_server.core.http.trace_context import TraceContext, event_span
from uplift_server.core.lifecycle import Trigger
from uplift_server.observe.attempt_log import AttemptLine
from uplift_server.observe.trace_records import AcceptedEvent, EndedAttempt

SERVICE: Final = "uplift-webhooks"
ACCEPT: Final = "accept"
ATTEMPT: Final = "attempt"
_TRACES_PATH: Final = "/v1/traces"
_NS_PER_MS: Final = 1_000_000
_DELIVERED: Final = Outcome.DELIVERED.text
_TEST: Final = Trigger.TEST.text


class OtlpTracer:
    """Creates spans, and sends them over OTLP/HTTP in batches. An SDK thread sends the batches."""

    def __init__(self, endpoint: str | None) -> None:
        """`endpoint` is the base URL of the collector. If None, the standard OpenTelemetry variables set the URL."""
        self._ids = _ChosenIds()
        ours = Resource({"service.name": SERVICE, "service.version": __version__, "process.pid": os.getpid()})
        self._provider = TracerProvider(
            resource=ours.merge(OTELResourceDetector().detect()), id_generator=self._ids, shutdown_on_exit=False
        )
        url = None if endpoint is None else endpoint + _TRACES_PATH
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
        self._tracer = self._provider.get_tracer("uplift_server", __version__)

    def record(self, events: Sequence[AcceptedEvent], attempts: Sequence[EndedAttempt]) -> None:
        """Create spans for events and attempts, and queue them."""
        for event in events:
            self._event(event)
        for attempt in attempts:
            self._attempt(attempt.line, attempt.sender_span)

    def close(self) -> None:
        """Send the queued spans, and stop the exporter."""
        self._provider.shutdown()

    def _event(self, event: AcceptedEvent) -> None:
        own = self._own(event.id, event.sender_span)
        # A repeated event already has a span with this ID, so use a new ID.
        self._ids.choose(own.trace_id, None if event.repeated else own.span_id)
        span = self._tracer.start_span(
            ACCEPT,
            Context() if event.sender_span is None else _below(event.sender_span),
            SpanKind.SERVER,
            {
                "uplift.event.id": str(uuid.UUID(bytes=event.id)),
                "uplift.event.type": event.type,
                "uplift.event.repeated": event.repeated,
                "uplift.account.id": event.account,
            },
            start_time=event.began_at,
        )
        span.end(event.ended_at)

    def _attempt(self, line: AttemptLine, sender_span: TraceContext | None) -> None:
        own = self._own(uuid.UUID(line.event).bytes, sender_span)
        self._ids.choose(own.trace_id, None)
        # There is no parent span if the server created the event.
        alone = line.type == WEBHOOK_CREATED or line.trigger == _TEST
        began_at = line.at * _NS_PER_MS
        attributes: dict[str, AttributeValue] = {
            "uplift.event.id": line.event,
            "uplift.event.type": line.type,
            "uplift.delivery.id": line.delivery,
            "uplift.endpoint.id": line.endpoint,
            "uplift.account.id": line.account,
            "uplift.attempt.number": line.attempt,
            "uplift.attempt.trigger": line.trigger,
            "uplift.outcome": line.outcome,
            "uplift.delivery.status": line.delivery_status,
        }
        if line.status_code is not None:
            attributes["http.response.status_code"] = line.status_code
        if line.outcome != _DELIVERED:
            attributes["error.type"] = line.outcome
        span = self._tracer.start_span(
            ATTEMPT, Context() if alone else _below(own), SpanKind.CLIENT, attributes, start_time=began_at
        )
        if line.outcome != _DELIVERED:
            span.set_status(Status(StatusCode.ERROR, line.outcome))
        span.end(began_at + int(line.duration_ms * _NS_PER_MS))

    def _own(self, event_id: bytes, sender_span: TraceContext | None) -> TraceContext:
        """Return the trace context of an event's span, which is the parent of the spans of the event's attempts."""
        own = event_span(event_id, sender_span, sampled=True)
        if sender_span is not None:
            return own
        decision = self._provider.sampler.should_sample(None, own.trace_id, ACCEPT).decision
        return own._replace(sampled=decision is Decision.RECORD_AND_SAMPLE)


class _ChosenIds(RandomIdGenerator):
    """An ID generator that returns the IDs from the latest call to `choose`."""

    def __init__(self) -> None:
        self._trace_id = 0
        self._span_id: int | None = None

    def choose(self, trace_id: int, span_id: int | None) -> None:
        """Set the IDs for the next span. If `span_id` is None, the span ID is random."""
        self._trace_id, self._span_id = trace_id, span_id

    def generate_trace_id(self) -> int:
        """Return the chosen trace ID."""
        return self._trace_id

    def generate_span_id(self) -> int:
        """Return the chosen span ID. If there is none, return a random one."""
        return self._span_id or super().generate_span_id()


def _below(parent: TraceContext) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    context = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(context), Context())
