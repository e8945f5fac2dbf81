"""An endpoint's own retry schedule and timeout, in a real server."""

from pathlib import Path

from . import receiving
from .harness import deliveries_of, serving, wait_for
from .receiving import Receiver, respond

SLOW_SECONDS = 1.5


def test_endpoints_have_their_own_schedules_and_timeouts(tmp_path: Path, receiver: Receiver) -> None:
    slow = respond(200, after=SLOW_SECONDS)
    cases = {
        receiver.url("/hangs", receiving.hang): ({"attempt_timeout": "1s", "retry_schedule": ["1s"]}, "failed", 2),
        receiver.url("/once", respond(500)): ({"retry_schedule": []}, "failed", 1),
        receiver.url("/slow", slow): ({"attempt_timeout": "30s"}, "delivered", 1),
        receiver.url("/server", slow): ({}, "failed", 1),
    }
    settings = {"UPLIFT_ATTEMPT_TIMEOUT": "500ms", "UPLIFT_RETRY_SCHEDULE": ""}
    with serving(tmp_path / "data", **settings) as server:
        _, api = server.account()
        endpoints = {api.endpoint(url, **own)["id"]: url for url, (own, _, _) in cases.items()}
        event = api.send(1).json["id"]
        deliveries = wait_for(
            lambda: (found := deliveries_of(api, event)) and all(d["status"] != "pending" for d in found) and found,
            "all deliveries are completed",
        )
        assert len(deliveries) == len(cases)
        for delivery in deliveries:
            url = endpoints[delivery["endpoint"]]
            _, status, attempts_made = cases[url]
            assert (delivery["status"], delivery["attempts_made"]) == (status, attempts_made), url
        [hung] = [each for each in deliveries if endpoints[each["endpoint"]].endswith("/hangs")]
        for attempt in api.ok("GET", f"/v1/deliveries/{hung['id']}/attempts")["data"]:
            assert (attempt["outcome"], attempt["error"]) == (
                "timeout", "no complete response within 1 s: still waiting for the response"
            )  # fmt: skip
