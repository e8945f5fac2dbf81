"""Traces in a collector: a span for each event, with its attempts as children, in the trace of the sender."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from uplift_server.core.http.trace_context import event_span

from .collector import Collector, Span, collector
from .harness import Api, deliveries_of, serving, settled, wait_for
from .receiving import Receiver, respond

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = f"00-{TRACE}-{SPAN}-01"
UNWANTED = f"00-{TRACE[::-1]}-{SPAN}-00"
SERVER, CLIENT = 2, 3
FAST_EXPORT = {"OTEL_BSP_SCHEDULE_DELAY": "100"}


def spans(found: Collector, event: str, count: int) -> list[Span]:
    """Wait for this many spans of an event. The accept span comes first."""

    def of_event() -> list[Span] | None:
        got = [span for span in found.spans if span.attributes["uplift.event.id"] == event]
        return sorted(got, key=lambda span: (span.name, span.attributes.get("uplift.attempt.number"))) if got else None

    return wait_for(lambda: (got := of_event()) and len(got) >= count and got, f"{count} spans of {event}")


def test_attempts_are_children_of_their_event_after_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    settings = {"UPLIFT_RETRY_SCHEDULE": "3s", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test", **FAST_EXPORT}
    with collector() as found:
        environ = {"UPLIFT_OTLP_ENDPOINT": found.url, "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=ours", **settings}
        with serving(tmp_path / "data", **environ) as server:
            account, api = server.account()
            url = receiver.url("/hook?token=s3cret", respond(500))
            endpoint = api.endpoint(url)["id"]
            event = api.send(1, id="0197f0c2-0000-7000-8000-000000000001").json["id"]
            traced = api("POST", "/v1/events", {"type": "test.numbered", "data": {"secret": "body"}}, traceparent=SENT)
            in_trace = traced.json["id"]
            spans(found, in_trace, 2)
            server.stop()
            receiver.url("/hook?token=s3cret", respond(200))
            server.start()
            first, *attempts = spans(found, in_trace, 3)
            own, *own_attempts = spans(found, event, 3)
            [delivery] = deliveries_of(api, in_trace)

    assert set(found.paths) == {"/v1/traces"}
    assert {headers["x-tenant"] for headers in found.headers} == {"ours"}
    assert found.resource["service.name"] == "uplift-webhooks"
    assert found.resource["deployment.environment"] == "test"
    # The event with a `traceparent` is in the sender's trace, and its span is a child of the sender's span.
    assert (first.name, first.kind, first.trace_id, first.parent_id) == ("accept", SERVER, TRACE, SPAN)
    assert {attempt.trace_id for attempt in attempts} == {TRACE}
    # The event without a `traceparent` has its own trace.
    assert own.parent_id == ""
    assert own.trace_id != TRACE
    assert own.trace_id == f"{event_span(bytes.fromhex(event.replace('-', '')), None, sampled=True).trace_id:032x}"
    assert {attempt.trace_id for attempt in own_attempts} == {own.trace_id}
    for accepted, below in ((first, attempts), (own, own_attempts)):
        assert [attempt.parent_id for attempt in below] == [accepted.span_id] * 2
        assert [attempt.error for attempt in below] == [True, False]
        assert 0 < accepted.duration_ms < 5_000
    failed, delivered = attempts
    assert (failed.name, failed.kind) == ("attempt", CLIENT)
    assert failed.attributes == {
        "uplift.event.id": in_trace,
        "uplift.event.type": "test.numbered",
        "uplift.delivery.id": delivery["id"],
        "uplift.endpoint.id": endpoint,
        "uplift.account.id": account,
        "uplift.attempt.number": 1,
        "uplift.attempt.trigger": "schedule",
        "uplift.outcome": "server_error",
        "uplift.delivery.status": "pending",
        "http.response.status_code": 500,
        "error.type": "server_error",
    }
    assert (delivered.attributes["uplift.outcome"], delivered.attributes["uplift.delivery.status"]) == (
        "delivered",
        "delivered",
    )
    assert not [body for body in found.bodies if b"s3cret" in body or b'"secret"' in body or b"/hook" in body]


def test_batches_repeats_and_server_events_have_spans(tmp_path: Path, receiver: Receiver) -> None:
    with (
        collector() as found,
        serving(tmp_path / "data", OTEL_EXPORTER_OTLP_ENDPOINT=found.url, **FAST_EXPORT) as server,
    ):
        account, api = server.account()
        endpoint = api.endpoint(receiver.url("/hook", respond(200)))["id"]
        entry = {"type": "test.numbered", "data": {}}
        batch = api.ok("POST", "/v1/events/batch", {"events": [entry, {**entry, "account": account}]}, traceparent=SENT)
        once = api.send(1, idempotency_key="k").json["id"]
        again = api("POST", "/v1/events", {**entry, "data": {"number": 1}, "idempotency_key": "k"}, traceparent=SENT)
        unwanted = api("POST", "/v1/events", entry, traceparent=UNWANTED).json["id"]
        settled(api, deliveries_of(api, unwanted)[0]["id"])
        both = [spans(found, each["id"], 2) for each in batch["data"]]
        first, repeated, attempt = spans(found, once, 3)
        [registration_attempt] = _registration_attempts(api, found, endpoint)

    assert again.json == {**again.json, "id": once, "duplicate": True}
    assert {span.trace_id for each in both for span in each} == {TRACE}
    assert {each[0].attributes["uplift.account.id"] for each in both} == {account}
    assert len({span.span_id for each in both for span in each}) == 4
    by_trace = {first.trace_id: first, repeated.trace_id: repeated}
    own, other = by_trace[attempt.trace_id], by_trace[TRACE]
    assert (own.attributes["uplift.event.repeated"], other.attributes["uplift.event.repeated"]) == (False, True)
    assert attempt.parent_id == own.span_id != other.span_id
    assert registration_attempt.parent_id == ""
    # The sender did not sample the trace.
    assert not [span for span in found.spans if span.attributes["uplift.event.id"] == unwanted]


def _registration_attempts(api: Api, found: Collector, endpoint: str) -> list[Span]:
    """Return the attempt spans of the registration event."""

    def attempts() -> Any:
        return [span for span in found.spans if span.attributes.get("uplift.event.type") == "webhook.created"]

    got: list[Span] = wait_for(attempts, "the span of the registration event")
    assert {span.attributes["uplift.endpoint.id"] for span in got} == {endpoint}
    return got


def test_an_unavailable_collector_does_not_affect_deliveries(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data", UPLIFT_OTLP_ENDPOINT="http://127.0.0.1:1", **FAST_EXPORT) as server:
        _, api = server.account()
        api.endpoint(receiver.url("/hook", respond(200)))
        for number in range(20):
            event = api.send(number).json["id"]
        assert settled(api, deliveries_of(api, event)[0]["id"])["status"] == "delivered"
        assert server.stop() == 0


def test_without_a_collector_opentelemetry_is_not_loaded() -> None:
    """The web framework loads the OpenTelemetry API, which does nothing on its own. No other part may be loaded."""
    program = (
        "import sys, uplift_server.app\n"
        "loaded = ('opentelemetry.sdk', 'opentelemetry.exporter', 'google.protobuf', 'uplift_server.observe.tracing')\n"
        "sys.exit(', '.join(name for name in sys.modules if name.startswith(loaded)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_missing_extra_is_reported_with_a_fix(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['opentelemetry.sdk'] = None\n"
        "sys.argv = ['uplift-server', 'serve']\n"
        "from uplift_server.cli.main import run\n"
        "run()"
    )
    environ = {"PATH": "/usr/bin", "UPLIFT_PORT": "0", "UPLIFT_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    assert ran.returncode == 2, ran.stderr
    assert "uplift-webhooks-server[otel]" in ran.stderr
