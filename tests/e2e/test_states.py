"""Paused and disabled endpoints: held deliveries survive kills, and test deliveries are still sent."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from uplift_server.store.schema import endpoints, events

from . import receiving
from .harness import TYPE, Server, serving, settled, wait_for
from .receiving import Receiver, sent_unsettled

COUNT = 400
RATE = 100
SETTINGS = {"UPLIFT_RELEASE_RATE_PER_SECOND": str(RATE)}
TWO_WEEKS_MS = 14 * 24 * 3600 * 1000


def accept(api: Any, first: int, count: int) -> None:
    """Send numbered events in one batch."""
    api.ok(
        "POST",
        "/v1/events/batch",
        {"events": [{"type": TYPE, "data": {"number": number}} for number in range(first, first + count)]},
    )


def count_held(api: Any, endpoint: str) -> int:
    """Return the number of held deliveries of an endpoint."""
    return int(api.ok("GET", f"/v1/endpoints/{endpoint}")["held_deliveries"])


def create_paused_endpoint(api: Any, receiver: Receiver) -> str:
    """Create an endpoint with a concurrency limit of 1, and pause it after its registration event."""
    endpoint: str = api.endpoint(receiver.url("/hook"), max_in_flight=1)["id"]
    wait_for(lambda: receiver.count("/hook") == 1, "the registration event arrives")
    api.ok("POST", f"/v1/endpoints/{endpoint}/pause")
    return endpoint


def backdate_two_weeks(server: Server) -> None:
    """Move all data of the stopped server two weeks into the past."""

    def backdate(connection: sa.Connection) -> None:
        for table, *names in ((events, "created_at"), (endpoints, "created_at", "state_since")):
            connection.execute(sa.update(table).values({name: table.c[name] - TWO_WEEKS_MS for name in names}))

    server.place.run(backdate)


def test_deliveries_held_for_two_weeks_are_sent_in_order(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data", **SETTINGS) as server:
        _, api = server.account()
        endpoint = create_paused_endpoint(api, receiver)
        accept(api, 0, COUNT // 2)
        server.stop()
        backdate_two_weeks(server)
        server.start()
        accept(api, COUNT // 2, COUNT // 2)
        assert count_held(api, endpoint) == COUNT
        assert receiver.on("/hook") == []
        began = time.time()
        assert api.ok("POST", f"/v1/endpoints/{endpoint}/enable")["state"] == "enabled"
        fresh = api.send(COUNT).json["id"]
        requests = receiver.wait("/hook", COUNT + 1, 30)
        numbers = [request.json["data"]["number"] for request in requests]
        # New events do not wait until all held deliveries have been sent.
        assert numbers.index(COUNT) < COUNT // 2
        numbers.remove(COUNT)
        assert numbers == list(range(COUNT))
        # Even with slow receiver threads, no delivery arrives earlier than the rate and a small initial burst allow.
        early = [n for n, request in enumerate(requests) if request.at - began < (n - RATE // 2) / RATE]
        assert early == []
        settled(api, api.ok("GET", f"/v1/events/{fresh}/deliveries")["data"][0]["id"])
        wait_for(lambda: count_held(api, endpoint) == 0, "no delivery is held")
        assert len(api.list_all(f"/v1/deliveries?endpoint={endpoint}&status=delivered&type={TYPE}")) == COUNT + 1


@pytest.mark.timeout(120)
def test_a_release_continues_after_kills(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data", **SETTINGS) as server:
        _, api = server.account()
        endpoint = create_paused_endpoint(api, receiver)
        accept(api, 0, COUNT)
        api.ok("POST", f"/v1/endpoints/{endpoint}/enable", {"held": "send"})
        cut_off = 0
        for part in (1, 2):
            wait_for(
                lambda part=part: len(receiver.on("/hook")) >= part * COUNT // 4, "some deliveries arrive", every=0.005
            )
            server.kill()
            cut_off += sent_unsettled(server, receiver, "/hook")
            server.start()
        assert count_held(api, endpoint) > 0
        wait_for(lambda: len(receiver.numbers("/hook")) == COUNT, "all deliveries arrive", 30)
        wait_for(
            lambda: not api.ok("GET", f"/v1/deliveries?endpoint={endpoint}&status=pending&limit=1")["data"],
            "all is done",
        )
        times = receiver.numbers("/hook")
        assert sum(times.values()) - COUNT <= cut_off
        first_came = list(dict.fromkeys(request.json["data"]["number"] for request in receiver.on("/hook")))
        assert first_came == list(range(COUNT))
        assert len(api.list_all(f"/v1/deliveries?endpoint={endpoint}&status=delivered&type={TYPE}")) == COUNT


def test_a_pause_stops_a_release_and_dropped_deliveries_are_not_sent(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data", **SETTINGS) as server:
        _, api = server.account()
        endpoint = create_paused_endpoint(api, receiver)
        accept(api, 0, COUNT)
        api.ok("POST", f"/v1/endpoints/{endpoint}/enable")
        receiver.wait("/hook", 50)
        api.ok("POST", f"/v1/endpoints/{endpoint}/pause")
        time.sleep(0.3)
        arrived = len(receiver.on("/hook"))
        wait_for(lambda: count_held(api, endpoint) == COUNT - arrived, "the other deliveries are held")
        one = api.ok("GET", f"/v1/deliveries?endpoint={endpoint}&status=held&limit=1")["data"][0]["id"]
        assert api.ok("POST", f"/v1/deliveries/{one}/cancel")["status"] == "cancelled"
        api.ok("POST", f"/v1/endpoints/{endpoint}/enable", {"held": "drop"})
        accept(api, COUNT, 1)
        assert receiver.wait("/hook", arrived + 1)[-1].json["data"]["number"] == COUNT
        wait_for(lambda: count_held(api, endpoint) == 0, "the other deliveries are cancelled")
        assert len(api.list_all(f"/v1/deliveries?endpoint={endpoint}&status=cancelled")) == COUNT - arrived
        assert len(receiver.on("/hook")) == arrived + 1


def command(server: Server, *arguments: str) -> tuple[int, Any]:
    """Run a command with the settings of a server. Return its exit code and output."""
    ran = server.run(*arguments, "--json")
    return ran.returncode, json.loads(ran.stdout)


def test_a_test_of_a_disabled_endpoint_returns_the_response(server: Server, receiver: Receiver) -> None:
    _, api = server.account()
    endpoint = api.endpoint(receiver.url("/tested", receiving.respond(body=b"thanks")), event_types=["export.*"])["id"]
    api.ok("POST", f"/v1/endpoints/{endpoint}/disable")
    response = api("POST", f"/v1/endpoints/{endpoint}/test")
    assert response.status == 200
    assert (response.json["outcome"], response.json["response"]["body"], response.json["trigger"]) == (
        "delivered",
        "thanks",
        "test",
    )
    assert receiver.on("/tested")[-1].json["type"] == "export.completed"
    receiver.url("/tested", receiving.respond(503))
    code, attempt = command(server, "endpoints", "test", endpoint, "--type", TYPE)
    assert (code, attempt["outcome"], attempt["status_code"]) == (1, "server_error", 503)
    shown = api.ok("GET", f"/v1/endpoints/{endpoint}")
    assert (shown["state"], shown["health"]["status"], shown["health"]["last_outcome"]) == ("disabled", "unknown", None)


@pytest.mark.timing
def test_a_slow_test_returns_early_and_completes_later(server: Server, receiver: Receiver) -> None:
    _, api = server.account()
    endpoint = api.endpoint(receiver.url("/slow", receiving.respond(after=5.5)), event_types=["export.*"])["id"]
    wait_for(lambda: receiver.count("/slow") == 1, "the registration event arrives")
    response = api("POST", f"/v1/endpoints/{endpoint}/test")
    assert (response.status, response.json["status"]) == (202, "pending")
    assert 3 < response.seconds < 5
    assert settled(api, response.json["id"])["status"] == "delivered"
    code, attempt = command(server, "endpoints", "test", endpoint)
    assert (code, attempt["outcome"]) == (0, "delivered")
    assert attempt["duration_ms"] > 5000


def test_a_test_interrupted_by_a_kill_fails(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data") as server:
        _, api = server.account()
        endpoint = api.endpoint(receiver.url("/hangs", receiving.hang), event_types=["export.*"])["id"]
        test = api("POST", f"/v1/endpoints/{endpoint}/test", idempotency_key="one")
        assert test.status == 202
        server.kill()
        receiver.url("/hangs", receiving.respond())
        server.start()
        assert settled(api, test.json["id"])["status"] == "failed"
        # A repeated request returns the same test delivery.
        again = api("POST", f"/v1/endpoints/{endpoint}/test", idempotency_key="one")
        assert (again.status, again.json["id"], again.json["status"]) == (202, test.json["id"], "failed")
        wait_for(lambda: receiver.count("/hangs") >= 3, "the registration event is retried")
        assert Counter(request.headers["x-uplift-event"] for request in receiver.on("/hangs")) == {
            "export.completed": 1
        }
