"""Every failure of a receiver has the right outcome, is retried on schedule, and is explained."""

import re
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.engines import chosen

from . import receiving
from .harness import Api, Server, deliveries_of, serving, settled, wait_for
from .receiving import Receiver, respond

pytestmark = pytest.mark.timing


SCHEDULE_MS = (200, 400, 300)
SETTINGS = {
    "UPLIFT_RETRY_SCHEDULE": ",".join(f"{wait}ms" for wait in SCHEDULE_MS),
    "UPLIFT_ATTEMPT_TIMEOUT": "700ms",
    "UPLIFT_BREAKER_FAILURES": "0",
}
GIB = 1024**3


def test_every_failure_has_an_outcome_a_retry_and_an_explanation(tmp_path: Path, receiver: Receiver) -> None:
    with socket.socket() as non_listening_socket:
        non_listening_socket.bind(("127.0.0.1", 0))  # without listen(): connections are refused
        target = receiver.url("/redirect-target")
        cases = {
            receiver.url("/301", respond(301, location=target)): ("redirect", 301),
            receiver.url("/307", respond(307, location=target)): ("redirect", 307),
            receiver.url("/404", respond(404)): ("client_error", 404),
            receiver.url("/410", respond(410)): ("client_error", 410),
            receiver.url("/429", respond(429)): ("throttled", 429),
            receiver.url("/500", respond(500)): ("server_error", 500),
            receiver.url("/hang", receiving.hang): ("timeout", None),
            receiver.url("/drip", receiving.drip): ("timeout", 200),
            f"http://127.0.0.1:{non_listening_socket.getsockname()[1]}/refused": ("connect_error", None),
            receiver.url("/close", receiving.close): ("protocol_error", None),
            receiver.url("/reset", receiving.reset): ("protocol_error", 200),
            receiver.url("/garbage", receiving.garbage): ("protocol_error", None),
        }
        with serving(tmp_path / "data", **SETTINGS) as server:
            _, api = server.account()
            endpoints = {api.endpoint(url, headers={"x-jwt": "s3cret-of-theirs"})["id"]: url for url in cases}
            event = api.send(1).json["id"]
            deliveries = wait_for(
                lambda: (found := deliveries_of(api, event)) and all(d["status"] != "pending" for d in found) and found,
                "all deliveries are completed",
            )
            assert len(deliveries) == len(cases)
            for delivery in deliveries:
                url = endpoints[delivery["endpoint"]]
                outcome, status = cases[url]
                assert (delivery["status"], delivery["failed_reason"]) == ("failed", "exhausted"), url
                assert (delivery["last_outcome"], delivery["attempts_made"]) == (outcome, len(SCHEDULE_MS) + 1), url
                attempts = api.ok("GET", f"/v1/deliveries/{delivery['id']}/attempts")["data"]
                attempts.sort(key=lambda attempt: attempt["number"])
                _check_attempts(attempts, outcome, status)
            for path in ("/404", "/hang", "/garbage"):
                _check_requests(receiver, path, event)
            assert receiver.count("/redirect-target") == 0
            health = next(e for e in api.list_all("/v1/endpoints") if e["url"].endswith("/500"))["health"]
            assert (health["status"], health["last_outcome"]) == ("failing", "server_error")
            assert health["hint"]
    # The database does not contain the value of the custom header either.
    assert b"s3cret" not in chosen().place(tmp_path / "data").contents()


def _check_attempts(attempts: list[Any], outcome: str, status: int | None) -> None:
    assert [attempt["number"] for attempt in attempts] == [1, 2, 3, 4]
    for attempt in attempts:
        assert attempt["outcome"] == outcome, attempt
        if outcome != "protocol_error":
            assert attempt["status_code"] == status, attempt
        assert attempt["hint"].count(". ") >= 1, "the hint lacks a cause or a fix"
        assert attempt["duration_ms"] < 2000
        assert set(attempt["timings"]) == {"dns_ms", "connect_ms", "tls_ms", "first_byte_ms"}
        if outcome != "connect_error":
            assert attempt["remote_address"].startswith("127.0.0.1:")
        headers = attempt["request"]["headers"]
        assert headers["x-uplift-attempt"] == str(attempt["number"])
        assert "s3cret" not in str(attempt), "a custom header is not masked"
        assert headers["x-jwt"]
        if status is not None and outcome not in {"protocol_error", "timeout"}:
            assert attempt["timings"]["first_byte_ms"] is not None
            assert attempt["response"]["body"] == "ok"
    for earlier, later, wait_ms in zip(attempts, attempts[1:], SCHEDULE_MS, strict=False):
        ended = _ms(earlier["started_at"]) + earlier["duration_ms"]
        waited = _ms(later["started_at"]) - ended
        # Timestamps are in whole milliseconds.
        assert wait_ms * 0.9 - 2 <= waited <= wait_ms * 1.1 + 1500, (outcome, waited, wait_ms)


def _check_requests(receiver: Receiver, path: str, event: str) -> None:
    """Check that the receiver got every scheduled attempt, with the right headers and not early."""
    seen = receiver.on(path)
    assert len(seen) == len(SCHEDULE_MS) + 1
    assert len({request.body for request in seen}) == 1, "attempts have different bodies"
    assert {request.headers["webhook-id"] for request in seen} == {event}
    assert [request.headers["x-uplift-attempt"] for request in seen] == ["1", "2", "3", "4"]
    assert {request.headers["x-jwt"] for request in seen} == {"s3cret-of-theirs"}
    assert len({request.headers["webhook-signature"] for request in seen}) == len(
        {request.headers["webhook-timestamp"] for request in seen}
    )
    for earlier, later, wait_ms in zip(seen, seen[1:], SCHEDULE_MS, strict=False):
        assert later.at - earlier.at >= wait_ms * 0.9 / 1000 - 0.002, "an attempt was early"


def test_huge_and_endless_responses_end_quickly_without_memory(tmp_path: Path, receiver: Receiver) -> None:
    good: list[int] = []
    bad: list[int] = []
    with serving(tmp_path / "data", **SETTINGS) as server:
        _, api = server.account()
        api.endpoint(receiver.url("/ok"))
        api.endpoint(receiver.url("/huge", receiving.huge(10 * GIB, good)))
        api.endpoint(receiver.url("/huge-500", receiving.huge(10 * GIB, bad, status=500)))
        api.endpoint(receiver.url("/endless", receiving.endless))
        api.send(0)
        receiver.wait("/ok", 1)
        before = server.resident_mib()
        events = [api.send(number).json["id"] for number in range(1, 6)]
        expected = {"/ok": "delivered", "/huge": "delivered", "/huge-500": "server_error", "/endless": "delivered"}
        paths = {endpoint["id"]: endpoint["url"] for endpoint in api.list_all("/v1/endpoints")}
        for event in events:
            for delivery in deliveries_of(api, event):
                path = "/" + paths[delivery["endpoint"]].rsplit("/", 1)[1]
                completed = settled(api, delivery["id"])
                assert completed["last_outcome"] == expected[path]
                attempt = api.ok("GET", f"/v1/deliveries/{delivery['id']}/attempts")["data"][0]
                assert attempt["response"]["body_truncated"] is (path != "/ok")
                assert len(attempt["response"]["body"]) <= 4096
                assert attempt["duration_ms"] < 700
        assert server.resident_mib() - before < 20
        # The server closes the connection early, so the receiver can send little more than the system's buffers hold.
        assert max(good + bad) < 64 * 1024**2


def test_a_slow_success_within_the_timeout_is_delivered_once(server: Server, receiver: Receiver) -> None:
    _, api = server.account()
    api.endpoint(receiver.url("/slow", respond(204, b"", after=0.4)))
    api.endpoint(receiver.url("/recovers", receiving.after_failing(2, 503)))
    event = api.send(1).json["id"]
    for delivery in deliveries_of(api, event):
        assert settled(api, delivery["id"], within=5)["status"] == "delivered"
    assert len(receiver.on("/slow")) == 1
    assert len(receiver.on("/recovers")) == 3


def test_every_received_request_is_an_attempt_or_counted_duplicate(own_server: Server, receiver: Receiver) -> None:
    _, api = own_server.account()
    api.endpoint(receiver.url("/once", receiving.once_per_connection()))
    attempts = []
    for _ in range(5):
        (delivery,) = deliveries_of(api, api.send(1).json["id"])
        assert settled(api, delivery["id"])["status"] == "delivered"
        attempts += api.ok("GET", f"/v1/deliveries/{delivery['id']}/attempts")["data"]
    twice = [attempt for attempt in attempts if attempt["error"] is not None]
    assert len(receiver.on("/once")) == len(attempts) + len(twice)
    assert len(twice) >= 4
    assert {attempt["outcome"] for attempt in twice} == {"delivered"}
    text = own_server.api()("GET", "/metrics").body.decode()
    (line,) = re.findall(r"^uplift_requests_repeated_total ([0-9.]+)$", text, re.MULTILINE)
    assert float(line) == receiver.count("/once") - len(api.list_all("/v1/deliveries"))


def test_retry_after_delays_the_next_attempt(server: Server, receiver: Receiver) -> None:
    _, api = server.account()
    api.endpoint(receiver.url("/busy", respond(503, retry_after="2")))
    api.send(1)
    first, second = receiver.wait("/busy", 2)[:2]
    assert second.at - first.at >= 2


def _ms(instant: str) -> float:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", instant)
    return datetime.fromisoformat(instant).timestamp() * 1000


def test_attempts_are_visible_to_their_account_only(server: Server, receiver: Receiver) -> None:
    _, api = server.account()
    _, other = server.account("Another")
    api.endpoint(receiver.url("/mine"))
    delivery = deliveries_of(api, api.send(1).json["id"])[0]["id"]
    settled(api, delivery)
    assert _status(other, f"/v1/deliveries/{delivery}/attempts") == 404


def _status(api: Api, path: str) -> int:
    return api("GET", path).status
