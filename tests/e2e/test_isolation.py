"""Slow receivers and the requests of one account do not affect other accounts."""

import statistics
import time
from pathlib import Path

import pytest

from . import receiving
from .harness import TYPE, Api, Server, deliveries_of, serving, settled, wait_for
from .receiving import Receiver

EVENTS = 200


def test_a_hanging_endpoint_does_not_delay_another(tmp_path: Path, receiver: Receiver) -> None:
    # The capacity is low: the hanging endpoint has ten times as many waiting deliveries as there are slots.
    settings = {"UPLIFT_MAX_IN_FLIGHT": "20", "UPLIFT_MAX_IN_FLIGHT_PER_ENDPOINT": "16"}
    with serving(tmp_path / "data", **settings) as server:
        _, healthy = server.account()
        _, hanging = server.account("Hanging")
        healthy.endpoint(receiver.url("/healthy"))
        alone = _latencies(healthy, receiver, first=0)
        hanging.endpoint(receiver.url("/hanging", receiving.hang))
        for number in range(EVENTS):
            assert hanging.send(number).status == 202
        wait_for(lambda: receiver.count("/hanging") >= 4, "the hanging endpoint holds some slots")
        under_load = _latencies(healthy, receiver, first=EVENTS)
        assert receiver.count("/hanging") <= 16, "the hanging endpoint exceeds its share"
        server.kill()  # A clean stop would wait for hanging requests.
    p50_alone, p99_alone = _quantiles(alone)
    p50_under_load, p99_under_load = _quantiles(under_load)
    assert p99_under_load < max(5 * p99_alone, 0.25), (p99_alone, p99_under_load)
    assert p50_under_load < max(3 * p50_alone, 0.05), (p50_alone, p50_under_load)


def _latencies(api: Api, receiver: Receiver, first: int) -> list[float]:
    sent: dict[int, float] = {}
    for number in range(first, first + EVENTS):
        sent[number] = time.time()
        assert api.send(number).status == 202
        time.sleep(0.002)
    wait_for(lambda: set(sent) <= set(receiver.numbers("/healthy")), "all events arrive")
    return [r.at - sent[n] for r in receiver.on("/healthy") if (n := r.json["data"]["number"]) in sent]


def _quantiles(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), statistics.quantiles(values, n=100)[98]


def test_an_account_cannot_see_or_change_another(server: Server, receiver: Receiver) -> None:
    mine_id, mine = server.account("Mine")
    other_id, other = server.account("Other")
    key = server.api().ok("POST", f"/v1/accounts/{other_id}/keys", {"name": "all"})["key"]
    foreign_client = server.api(key)
    endpoint = mine.endpoint(receiver.url("/mine"))["id"]
    event = mine.send(1).json["id"]
    delivery = deliveries_of(mine, event)[0]["id"]
    settled(mine, delivery)
    for path in ("/v1/events", "/v1/endpoints", "/v1/deliveries"):
        assert foreign_client.ok("GET", path)["data"] == []
        assert other.ok("GET", path)["data"] == []
        assert mine.ok("GET", path)["data"] != []
    calls = [
        ("GET", f"/v1/events/{event}"),
        ("GET", f"/v1/events/{event}/deliveries"),
        ("GET", f"/v1/endpoints/{endpoint}"),
        ("GET", f"/v1/endpoints/{endpoint}/deliveries"),
        ("PATCH", f"/v1/endpoints/{endpoint}"),
        ("DELETE", f"/v1/endpoints/{endpoint}"),
        ("GET", f"/v1/deliveries/{delivery}"),
        ("GET", f"/v1/deliveries/{delivery}/attempts"),
    ]
    for method, path in calls:
        body = {"description": "theirs now"} if method == "PATCH" else None
        for caller in (foreign_client, other):
            got = caller(method, path, body)
            assert (got.status, got.json["code"]) == (404, "not_found"), (method, path)
    # A request cannot select another account, and sending needs a scope that the key does not have.
    assert foreign_client("GET", "/v1/events", uplift_account=mine_id).status == 404
    assert foreign_client.send(1).status == 403
    for path in ("/v1/accounts", f"/v1/accounts/{mine_id}", f"/v1/accounts/{other_id}/keys"):
        assert foreign_client("GET", path).status in {403, 404}
    # An event of one account reaches no endpoint of another account.
    other.endpoint(receiver.url("/other"))
    number = 77
    mine.send(number)
    other.send(number + 1)
    receiver.wait("/mine", 2)
    receiver.wait("/other", 1)
    assert set(receiver.numbers("/mine")) == {1, number}
    assert set(receiver.numbers("/other")) == {number + 1}
    assert mine.ok("GET", f"/v1/endpoints/{endpoint}")["description"] != "theirs now"


@pytest.mark.timing
def test_a_revoked_key_is_rejected_immediately(server: Server) -> None:
    account, _ = server.account()
    operator = server.api()
    key = operator.ok("POST", f"/v1/accounts/{account}/keys", {"name": "laptop"})
    holder = server.api(key["key"])
    assert holder("GET", "/v1/events").status == 200
    operator.ok("DELETE", f"/v1/accounts/{account}/keys/{key['id']}")
    revoked_at = time.monotonic()
    wait_for(lambda: holder("GET", "/v1/events").status == 401, "the key is rejected", within=1)
    assert time.monotonic() - revoked_at < 1
    assert holder("GET", "/v1/endpoints").json["code"] == "unauthorized"


def test_a_deleted_endpoint_receives_nothing_more(server: Server, receiver: Receiver) -> None:
    _, api = server.account()
    deleted = api.endpoint(receiver.url("/gone", receiving.respond(500)), event_types=[TYPE])["id"]
    api.endpoint(receiver.url("/stays"))
    waiting = api.send(1).json["id"]
    receiver.wait("/gone", 1)
    api.ok("DELETE", f"/v1/endpoints/{deleted}")
    deleted_at = time.time()
    api.send(2)
    receiver.wait("/stays", 2)
    delivery = next(d for d in deliveries_of(api, waiting) if d["endpoint"] == deleted)
    assert settled(api, delivery["id"])["status"] in {"cancelled", "failed"}
    # According to the retry schedule of this server, the next retry would start within this time.
    time.sleep(max(0.0, deleted_at + 0.5 - time.time()))
    assert [request for request in receiver.on("/gone") if request.at > deleted_at + 0.05] == []
    assert set(receiver.numbers("/gone")) == {1}
    assert api("GET", f"/v1/endpoints/{deleted}").status == 404
