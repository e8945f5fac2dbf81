"""Filters of endpoints in a real server: batches, a crash, a test event and a replay of missing events."""

from collections import Counter
from pathlib import Path
from typing import Any

from .harness import OPERATOR_KEY, TYPE, Api, serving, wait_for
from .receiving import Receiver

EVEN = {"number": list(range(0, 100, 2))}


def completed(api: Api, replay: str) -> Any:
    """Return a replay if it is completed."""
    found = api.ok("GET", f"/v1/replays/{replay}")
    return found if found["state"] == "completed" else None


def test_an_endpoint_receives_only_the_events_that_its_filter_matches(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data") as server:
        account, api = server.account()
        all_events = api.endpoint(receiver.url("/all"))["id"]
        filtered = api.endpoint(receiver.url("/even"), filter=EVEN)["id"]
        batch = {"events": [{"type": TYPE, "data": {"number": number}} for number in range(20)]}
        sent = server.api(OPERATOR_KEY, account).ok("POST", "/v1/events/batch?include=endpoints", batch)["data"]
        assert [set(each["endpoints"]) for each in sent] == [{all_events, filtered}, {all_events}] * 10
        receiver.wait("/all", 20)
        receiver.wait("/even", 10)
        explained = api.ok("GET", f"/v1/events/{sent[1]['id']}/explain?endpoint={filtered}")["data"]
        assert [each["reason"] for each in explained] == ["filtered"]

        server.kill()
        server.start()
        assert [api.send(number).status for number in (20, 21, 22)] == [202] * 3
        receiver.wait("/even", 12)
        assert receiver.numbers("/even") == Counter(range(0, 23, 2))
        api.ok("POST", f"/v1/endpoints/{filtered}/test", {"type": TYPE})

        api.ok("PATCH", f"/v1/endpoints/{filtered}", {"filter": {"number": [7, 8]}})
        wanted = {"endpoint": filtered, "status": [], "include_missing": True, "rate_per_second": 1000}
        preview = api.ok("POST", "/v1/replays", {**wanted, "dry_run": True})
        assert (preview["missing"], preview["filtered"]) == (11, True)
        replay = api.ok("POST", "/v1/replays", wanted)["id"]
        done = wait_for(lambda: completed(api, replay), "the replay is completed")
        assert (done["delivered"], done["skipped"]) == (1, 10)
        # The filter does not apply to the test event, which has no number.
        requests = receiver.wait("/even", 14)
        assert Counter(each.json["data"].get("number") for each in requests) == Counter([None, 7, *range(0, 23, 2)])
