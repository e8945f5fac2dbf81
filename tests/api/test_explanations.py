"""Explanations of an event for each endpoint of its account."""

from typing import Any

import sqlalchemy as sa

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.store.schema import deliveries


def explained(client: Any, event: str, query: str = "") -> dict[str, dict[str, Any]]:
    """Return the explanations by endpoint."""
    response = client.get(f"/v1/events/{event}/explain{query}")
    assert response.status == 200, response.body
    for each in response.json["data"]:
        assert set(each) == {"endpoint", "reason", "text", "hint", "delivery"}
        assert each["text"].endswith(".")
    return {each["endpoint"]: each for each in response.json["data"]}


def create_endpoint(client: Any, *types: str) -> str:
    """Create an endpoint, and return its ID."""
    return str(client.post("/v1/endpoints", {"url": "https://example.com/a", "event_types": list(types)}).json["id"])


def test_every_endpoint_of_the_account_is_explained(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    delivered, failed, held, gone = (create_endpoint(owner) for _ in range(4))
    other = create_endpoint(owner, "export.*")
    statuses = {delivered: Status.DELIVERED, failed: Status.PENDING, held: Status.HELD, gone: Status.PENDING}
    event = server.event(account, statuses)
    for leased in server.lease(failed):
        server.settle(leased, Outcome.SERVER_ERROR, Status.FAILED)
    owner.delete(f"/v1/endpoints/{gone}")
    newer = create_endpoint(owner)

    found = explained(owner, event)
    assert {endpoint: each["reason"] for endpoint, each in found.items()} == {
        newer: "endpoint_newer",
        other: "not_subscribed",
        gone: "endpoint_deleted",
        held: "held",
        failed: "failed",
        delivered: "delivered",
    }
    assert list(found) == [newer, other, gone, held, failed, delivered]
    assert "responded with 500" in found[failed]["text"]
    assert found[failed]["hint"].endswith("Then resend the delivery.")
    assert found[other]["delivery"] is found[newer]["delivery"] is None
    deliveries = {each["endpoint"]: each["id"] for each in owner.get(f"/v1/events/{event}/deliveries").json["data"]}
    assert {endpoint: each["delivery"] for endpoint, each in found.items() if each["delivery"]} == deliveries
    for endpoint in (gone, newer):
        assert explained(owner, event, f"?endpoint={endpoint}") == {endpoint: found[endpoint]}
    assert explained(server.operator, event) == found


def test_a_held_delivery_of_an_expired_event_is_explained(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    endpoint = create_endpoint(owner)
    now = server.services.context.now()
    expired, valid = (server.event(account, {endpoint: Status.HELD}, expires_at=at) for at in (now, now + 3_600_000))
    owner.post(f"/v1/endpoints/{endpoint}/pause")
    assert explained(owner, expired)[endpoint]["reason"] == "expired"
    assert explained(owner, valid)[endpoint]["reason"] == "held"


def test_a_removed_delivery_is_explained(server: Any) -> None:
    """Retention deletes the deliveries of a partition before its events. The explanation suggests no resend."""
    account = server.account()
    owner = server.owner(account)
    successful, failing, unsubscribed = (
        create_endpoint(owner),
        create_endpoint(owner),
        create_endpoint(owner, "export.*"),
    )
    event = server.event(account, {successful: Status.PENDING, failing: Status.PENDING})
    for endpoint, outcome, status in (
        (successful, Outcome.DELIVERED, Status.DELIVERED),
        (failing, Outcome.SERVER_ERROR, Status.FAILED),
    ):
        for leased in server.lease(endpoint):
            server.settle(leased, outcome, status)
    server.run(lambda: server.database.write(lambda c: c.execute(sa.delete(deliveries))))

    found = explained(owner, event)
    assert {endpoint: each["reason"] for endpoint, each in found.items()} == {
        successful: "delivered",
        failing: "failed",
        unsubscribed: "not_subscribed",
    }
    assert found[successful]["hint"] is found[failing]["hint"] is None
    owner.delete(f"/v1/endpoints/{successful}")
    assert explained(owner, event, f"?endpoint={successful}") == {successful: found[successful]}


def test_a_registration_event_is_for_its_endpoint_only(server: Any) -> None:
    owner = server.owner(server.account())
    first, second = create_endpoint(owner), create_endpoint(owner)
    registration = owner.get("/v1/events?type=webhook.created&limit=1").json["data"][0]["id"]

    found = explained(owner, registration)
    assert found[second]["reason"] == "pending"
    assert found[first]["reason"] == "not_subscribed"
    assert "to only one endpoint" in found[first]["text"]


def test_an_endpoint_of_another_account_is_unknown(server: Any) -> None:
    account = server.account()
    owner, other_owner = server.owner(account), server.owner(server.account())
    event = server.event(account)
    theirs = create_endpoint(other_owner)
    for endpoint in (theirs, "ep_nonsense", ""):
        response = owner.get(f"/v1/events/{event}/explain?endpoint={endpoint}&nope=1")
        assert response.problems == {("endpoint", "endpoint_unknown"), ("nope", "unknown_field")}
    assert explained(owner, event) == {}


def test_an_endpoint_that_was_deleted_before_the_event_is_explained(server: Any) -> None:
    account = server.account()
    owner, other_owner = server.owner(account), server.owner(server.account())
    gone, theirs = create_endpoint(owner), create_endpoint(other_owner)
    owner.delete(f"/v1/endpoints/{gone}")
    other_owner.delete(f"/v1/endpoints/{theirs}")
    event = server.event(account)

    for client in (owner, server.operator):
        found = explained(client, event, f"?endpoint={gone}")
        assert {endpoint: each["reason"] for endpoint, each in found.items()} == {gone: "endpoint_deleted"}
        assert found[gone]["delivery"] is None
        assert found[gone]["hint"]
    unsubscribed = create_endpoint(owner, "export.*")
    owner.delete(f"/v1/endpoints/{unsubscribed}")
    later = server.event(account)
    assert explained(owner, event) == found, "an endpoint that was deleted after the event is not listed"
    assert list(explained(owner, later)) == [gone], "nor one that was not subscribed"
    response = owner.get(f"/v1/events/{event}/explain?endpoint={theirs}")
    assert response.problems == {("endpoint", "endpoint_unknown")}


def test_a_failure_is_explained_during_retries(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    endpoint = create_endpoint(owner)
    event = server.event(account, {endpoint: Status.PENDING})
    now = server.services.context.now()
    for leased in server.lease(endpoint):
        server.settle(leased, Outcome.TIMEOUT, Status.PENDING, now + 60_000)

    [found] = explained(owner, event).values()
    assert found["reason"] == "pending"
    assert "Attempt 2 is due at" in found["text"]
    assert found["hint"]


def test_listen_sessions_are_explained_separately(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    session = owner.post("/v1/listen-sessions", {"description": "ana-laptop"}).json["id"]
    event = server.event(account, {})
    (explanation,) = owner.get(f"/v1/events/{event}/explain").json["data"]
    assert (explanation["endpoint"], explanation["reason"], explanation["delivery"]) == (
        session,
        "development_endpoint",
        None,
    )
    assert owner.get(f"/v1/events/{event}/explain?endpoint={session}").json["data"] == [explanation]

    reader = server.owner(account, ["events:read", "deliveries:read"])
    assert reader.get(f"/v1/events/{event}/explain").json["data"] == []
    assert reader.get(f"/v1/events/{event}/explain?endpoint={session}").json["errors"][0]["code"] == "endpoint_unknown"
