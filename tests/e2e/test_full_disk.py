"""A full disk: the server rejects events in time, keeps accepted events, and recovers without a restart."""

import threading
from pathlib import Path
from typing import Any

import pytest

from .harness import TYPE, Api, ApiResponse, deliveries_of, serving, settled, wait_for
from .receiving import Connection, Received, Receiver, respond
from .storage import STORAGE_KINDS, small_storage

pytestmark = pytest.mark.sqlite(reason="PostgreSQL stores its data on another machine")

PADDING = "x" * 20_000
SLOW = "test.slow"


@pytest.mark.parametrize("storage_kind", STORAGE_KINDS)
def test_a_full_disk_rejects_events_until_there_is_space(tmp_path: Path, receiver: Receiver, storage_kind: str) -> None:
    may_respond, has_responded = threading.Event(), threading.Event()

    def slow(connection: Connection, received: Received) -> bool:
        may_respond.wait(15)
        respond()(connection, received)
        has_responded.set()
        return True

    with small_storage(storage_kind, tmp_path / "data") as storage, serving(storage.data) as server:
        account, api = server.account()
        api.ok("PUT", f"/v1/event-types/{SLOW}", {"description": "Goes to the slow endpoint."})
        api.endpoint(receiver.url("/hook"), event_types=[TYPE])
        receiver.url("/slow", slow)
        accepted = {number for number in range(5) if _send(api, number).status == 202}
        assert len(accepted) == 5
        receiver.wait("/hook", 5)
        slow_endpoint = api.endpoint(receiver.url("/slow", respond()), event_types=[SLOW])["id"]
        wait_for(lambda: receiver.count("/slow") == 1, "the registration event arrives")
        receiver.url("/slow", slow)
        in_flight = api.ok("POST", "/v1/events", {"type": SLOW, "data": {}})["id"]
        receiver.wait("/slow", 1)

        storage.fill(server)
        responses = _send_until_rejected(api, accepted)
        responses += [api("POST", "/v1/events/batch", _batch(account, 10)), _send(api, 500), _send(api, 501)]
        accepted |= {number for number, got in ((500, responses[-2]), (501, responses[-1])) if got.status == 202}
        accepted |= set(range(1000, 1010)) if responses[-3].status == 202 else set()
        for response in responses:
            assert response.status in {202, 503}
            assert response.seconds < 5
            if response.status == 503:
                _check_rejection(response)
        # An attempt ends while the disk is full. Its outcome must be stored when there is space.
        may_respond.set()
        assert has_responded.wait(10)
        for path in ("/v1/events", "/v1/endpoints", f"/v1/events/{in_flight}", f"/v1/endpoints/{slow_endpoint}"):
            assert api("GET", path).status == 200, "reads fail"
        assert api("GET", "/healthz").status == 200
        changed = api("PATCH", f"/v1/endpoints/{slow_endpoint}", {"description": "z" * 900})
        assert changed.status in {200, 503}
        assert changed.seconds < 5

        storage.free(server)
        accepted |= {
            wait_for(lambda: 2000 if _send(api, 2000).status == 202 else 0, "the server accepts events again", 10)
        }
        wait_for(lambda: set(receiver.numbers("/hook")) == accepted, f"all {len(accepted)} events arrive: {server.log}")
        stored = {event["id"] for event in api.list_all(f"/v1/events?type={TYPE}")}
        assert len(stored) == len(accepted), "rejected events were stored"
        delivery = deliveries_of(api, in_flight)[0]["id"]
        completed = settled(api, delivery)
        assert (completed["status"], completed["attempts_made"]) == ("delivered", 1)
        assert set(receiver.numbers("/hook").values()) == {1}
        assert len(receiver.on("/slow")) == 1
        assert server.stop() == 0, server.log


def _send(api: Api, number: int) -> ApiResponse:
    return api("POST", "/v1/events", {"type": TYPE, "data": {"number": number, "padding": PADDING}})


def _batch(account: str, count: int) -> Any:
    data = [{"number": number, "padding": PADDING * 10} for number in range(1000, 1000 + count)]
    return {"events": [{"type": TYPE, "account": account, "data": each} for each in data]}


def _send_until_rejected(api: Api, accepted: set[int]) -> list[ApiResponse]:
    responses: list[ApiResponse] = []
    for number in range(100, 300):
        responses.append(_send(api, number))
        if responses[-1].status != 202:
            return responses
        accepted.add(number)
    raise AssertionError("it never ran out of room")


def _check_rejection(rejected: ApiResponse) -> None:
    assert rejected.headers["content-type"] == "application/problem+json"
    assert int(rejected.headers["retry-after"]) >= 1
    assert (rejected.json["status"], rejected.json["code"]) == (503, "unavailable")
    assert rejected.json["detail"]
