"""Kills during a replay of thousands of deliveries: the server repeats only those in flight at a kill."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from uplift_webhooks.api import Client

from . import receiving
from .harness import TYPE, serving, wait_for
from .receiving import Receiver, sent_unsettled

COUNT = 3000
BATCH = 500
SETTINGS = {"UPLIFT_RETRY_SCHEDULE": "", "UPLIFT_BREAKER_FAILURES": "0"}


def fail(api: Any, receiver: Receiver, count: int) -> str:
    """Create an endpoint with this many failed deliveries. From now on, its receiver responds with success."""
    endpoint: str = api.endpoint(receiver.url("/hook", receiving.respond(500)))["id"]
    for first in range(0, count, BATCH):
        events = [{"type": TYPE, "data": {"number": n}} for n in range(first, min(first + BATCH, count))]
        api.ok("POST", "/v1/events/batch", {"events": events})
    wait_for(
        lambda: not api.ok("GET", "/v1/deliveries?status=pending&limit=1")["data"], "all have failed", 40, every=0.2
    )
    receiver.url("/hook", receiving.respond())
    receiver.requests.clear()
    return endpoint


@pytest.mark.timeout(180)
def test_a_replay_continues_exactly_after_kills(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data", **SETTINGS) as server:
        _, api = server.account()
        endpoint = fail(api, receiver, COUNT)
        selection = {"endpoint": endpoint, "types": [TYPE], "rate_per_second": 1000}
        assert api.ok("POST", "/v1/replays", {**selection, "dry_run": True})["count"] == COUNT
        path = f"/v1/replays/{api.ok('POST', '/v1/replays', selection)['id']}"
        cut_off, sent = 0, []
        for part in (1, 2, 3):
            wait_for(
                lambda part=part: len(receiver.on("/hook")) >= part * COUNT // 5,
                "some deliveries are sent",
                30,
                every=0.005,
            )
            server.kill()
            cut_off += sent_unsettled(server, receiver, "/hook")
            server.start()
            sent.append(api.ok("GET", path)["sent"])
        assert sent == sorted(sent)
        assert sent[-1] < COUNT
        wait_for(lambda: api.ok("GET", path)["state"] == "completed", "the replay is completed", 60, every=0.1)
        done = api.ok("GET", path)
        assert (done["total"], done["delivered"], done["failed"], done["skipped"]) == (COUNT, COUNT, 0, 0)
        times = Counter(receiver.numbers("/hook"))
        assert set(times) == set(range(COUNT))
        duplicates = sum(times.values()) - COUNT
        print(f"{duplicates} duplicates, {cut_off} sent and unsettled at 3 kills")
        assert duplicates <= cut_off
        assert len(api.list_all(f"/v1/deliveries?status=delivered&endpoint={endpoint}&type={TYPE}")) == COUNT


@pytest.mark.timeout(180)
def test_a_new_endpoint_receives_earlier_events_once_despite_kills(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data", **SETTINGS) as server:
        account, api = server.account()
        api.endpoint(receiver.url("/first"), event_types=[TYPE])
        for first in range(0, COUNT // 2, BATCH):
            events = [{"type": TYPE, "data": {"number": n}} for n in range(first, first + BATCH)]
            api.ok("POST", "/v1/events/batch", {"events": events})
        late = api.endpoint(receiver.url("/late"), event_types=[TYPE])["id"]
        live = [api.send(COUNT // 2 + number).status for number in range(20)]
        assert live == [202] * 20
        with Client(server.url, server.environ["UPLIFT_OPERATOR_KEY"], account=account) as client:
            preview = client.replays.create(late, include_missing=True, dry_run=True)
            assert (preview["count"], preview["missing"], preview["complete"]) == (COUNT // 2, COUNT // 2, True)
            job = client.replays.create(late, include_missing=True, rate_per_second=500)
            cut_off = 0
            for part in (1, 2, 3):
                wait_for(lambda part=part: len(receiver.on("/late")) >= part * COUNT // 10, "some are sent", 30, 0.005)
                server.kill()
                cut_off += sent_unsettled(server, receiver, "/late")
                server.start()
            wait_for(lambda: client.replays.get(job["id"])["state"] == "completed", "the replay is completed", 60, 0.1)
            done = client.replays.get(job["id"])
            assert (done["total"], done["delivered"], done["skipped"]) == (COUNT // 2, COUNT // 2, 0)
            again = client.replays.create(late, status=["failed", "cancelled"], include_missing=True, dry_run=True)
            assert again["count"] == 0
        times = receiver.numbers("/late")
        assert set(times) == set(range(COUNT // 2 + 20))
        assert sum(times.values()) - len(times) <= cut_off
        assert len(api.list_all(f"/v1/deliveries?status=delivered&endpoint={late}&type={TYPE}")) == COUNT // 2 + 20
        order = [number for each in receiver.on("/late") if (number := each.json["data"]["number"]) < COUNT // 2]
        first_times = list(dict.fromkeys(order))
        # Only attempts in flight at the same time overtake each other.
        assert all(abs(place - number) < 64 for place, number in enumerate(first_times))


@pytest.mark.timing
def test_a_cancel_takes_effect_within_a_second(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data", **SETTINGS) as server:
        _, api = server.account()
        endpoint = fail(api, receiver, 1000)
        job = api.ok("POST", "/v1/replays", {"endpoint": endpoint, "types": [TYPE], "rate_per_second": 300})
        receiver.wait("/hook", 100)
        began = time.monotonic()
        api.ok("POST", f"/v1/replays/{job['id']}/cancel")
        assert time.monotonic() - began < 1
        time.sleep(0.2)
        sent = len(receiver.on("/hook"))
        ended = wait_for(
            lambda: (found := api.ok("GET", f"/v1/replays/{job['id']}"))["completed_at"] and found, "it has ended", 5
        )
        assert (ended["state"], ended["sent"]) == ("cancelled", sent)
        time.sleep(0.5)
        assert len(receiver.on("/hook")) == sent
        assert len(api.list_all(f"/v1/deliveries?status=failed&endpoint={endpoint}&type={TYPE}")) == 1000 - sent
