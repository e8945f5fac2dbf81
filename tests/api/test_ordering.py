"""Ordering keys of events, and blocked deliveries."""

from typing import Any

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status

from .test_deliveries import Owner
from .test_ingest import Client, event, operator, port, problems  # noqa: F401 - fixtures


def test_an_event_has_an_ordering_key(operator: Client) -> None:  # noqa: F811
    keyed = operator.post("/v1/events", event(ordering_key="athlete_1", idempotency_key="k")).json()
    assert operator.get(f"/v1/events/{keyed['id']}")["ordering_key"] == "athlete_1"
    batch = operator.post("/v1/events/batch", {"events": [event(ordering_key="ü"), event()]}).json()["data"]
    assert [operator.get(f"/v1/events/{each['id']}")["ordering_key"] for each in batch] == ["ü", None]
    listed = {each["id"]: each["ordering_key"] for each in operator.get("/v1/events")["data"]}
    assert listed[keyed["id"]] == "athlete_1"

    repeated = operator.post("/v1/events", event(ordering_key="athlete_1", idempotency_key="k"))
    assert (repeated.status, repeated.json()["id"]) == (202, keyed["id"])
    assert operator.post("/v1/events", event(ordering_key="athlete_2", idempotency_key="k")).status == 409
    for wrong, code in (("", "ordering_key_invalid"), ("a" * 129, "ordering_key_invalid"), (7, "type_text")):
        response = operator.post("/v1/events", event(ordering_key=wrong))
        assert (response.status, problems(response)) == (422, {("ordering_key", code)})


def test_a_blocked_delivery_names_the_one_it_waits_for(server: Any) -> None:
    """A blocked delivery can be cancelled, but not resent. It is unblocked when the earlier delivery ends."""
    owner = Owner(server)
    assert (
        owner.client.patch(f"/v1/endpoints/{owner.endpoint}", {"ordering": "endpoint"}).json["ordering"] == "endpoint"
    )
    first, second, third = (owner.delivery(order_group=0) for _ in range(3))
    [leased] = server.lease(owner.endpoint)
    listed = owner.client.get(f"/v1/deliveries?endpoint={owner.endpoint}&status=pending").json["data"]
    shown = {each["id"]: (each["waiting_for"], each["blocked_by"], each["next_attempt_at"]) for each in listed}
    assert shown == {first: (None, None, None), second: ("order", first, None), third: ("order", first, None)}
    [explained] = owner.client.get(f"/v1/events/{listed[0]['event']}/explain").json["data"]
    assert first in explained["text"]
    assert "cancel" in explained["hint"]

    rejected = owner.client.post(f"/v1/deliveries/{second}/resend")
    assert (rejected.status, rejected.json["code"]) == (409, "conflict")
    assert first in rejected.json["detail"]
    assert owner.client.post(f"/v1/deliveries/{second}/cancel").json["status"] == "cancelled"
    server.settle(leased, Outcome.SERVER_ERROR, Status.FAILED)
    assert owner.client.get(f"/v1/deliveries/{third}").json["waiting_for"] == "turn"
    assert owner.client.post(f"/v1/deliveries/{first}/resend").status == 202
