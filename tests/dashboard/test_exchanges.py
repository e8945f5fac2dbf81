"""Attempts as pages show them: phases, outcomes, and the curl command that repeats the request."""

from dataclasses import replace

import pytest

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Trigger
from uplift_server.dashboard.exchanges import curl, told
from uplift_server.store.records import Attempt

ATTEMPT = Attempt(
    number=1,
    trigger=Trigger.SCHEDULE,
    started_at=1_764_000_000_000,
    duration_us=100_500,
    dns_ms=10,
    connect_ms=20,
    tls_ms=30,
    first_byte_ms=90,
    status_code=200,
    outcome=Outcome.DELIVERED,
    error=None,
    location=None,
    remote_address="192.0.2.1:443",
    request_head=b"POST /hook HTTP/1.1\r\nhost: a.example\r\ncontent-length: 2\r\nx-team: it's\r\n\r\n",
    response_head=b"HTTP/1.1 200 OK\r\nserver: \x1b[31m\r\n\r\n",
    response_body=b"ok\x00\xff",
    body_truncated=False,
)


def phases(attempt: Attempt) -> list[tuple[str, float]]:
    """Return the durations of the phases."""
    return [(part.kind, part.value) for part in told(attempt).phases]


def test_phases_add_up_to_the_duration() -> None:
    assert phases(ATTEMPT) == [("dns", 10), ("connect", 20), ("tls", 30), ("wait", 30), ("read", 10)]
    reused = replace(ATTEMPT, dns_ms=None, connect_ms=None, tls_ms=None)
    assert phases(reused) == [("wait", 90), ("read", 10)]
    assert told(reused).timings == "first byte 90 ms, rest of response 10 ms"


@pytest.mark.parametrize("duration_us", [100_500, 1_000])
def test_an_attempt_without_a_response_ends_with_the_wait_phase(duration_us: int) -> None:
    silent = replace(ATTEMPT, first_byte_ms=None, tls_ms=None, status_code=None, duration_us=duration_us)
    assert phases(silent) == [("dns", 10), ("connect", 20), ("wait", max(0, duration_us // 1000 - 30))]


def test_no_phase_has_a_negative_duration() -> None:
    short = replace(ATTEMPT, first_byte_ms=59, duration_us=60_900)
    assert phases(short)[-2:] == [("wait", 0), ("read", 0)]


def test_outcomes_have_labels_and_explanations() -> None:
    assert (told(ATTEMPT).status, told(ATTEMPT).outcome) == ("delivered", "Delivered, 200")
    assert told(ATTEMPT).explanation is None
    late = told(replace(ATTEMPT, outcome=Outcome.TIMEOUT, status_code=None))
    assert (late.status, late.outcome) == ("failed", "Timeout")
    assert late.explanation is not None


def test_received_control_characters_are_replaced() -> None:
    shown = told(ATTEMPT)
    assert shown.request_head == "POST /hook HTTP/1.1\nhost: a.example\ncontent-length: 2\nx-team: it's"
    assert shown.response_head == "HTTP/1.1 200 OK\nserver: ?[31m"
    assert shown.response_body == "ok?\ufffd"


def test_the_curl_command_omits_headers_that_curl_adds() -> None:
    assert curl(ATTEMPT, "https://a.example/hook?a=1&b", b"{}") == (
        "curl --globoff 'https://a.example/hook?a=1&b' \\\n"
        "  -H 'x-team: it'\"'\"'s' \\\n  -H accept: \\\n  --data-binary '{}'"
    )
