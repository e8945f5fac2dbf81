"""Test events of endpoints: requests, responses and stored deliveries."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.events import envelope
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.delivery.sending.test_deliveries import Busy
from uplift_server.store import audit
from uplift_server.store.errors import Unavailable


class Owner:
    """An account with an endpoint, and an engine that settles tests with a given outcome."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.account = server.account()
        self.client = server.owner(self.account)
        self.endpoint = self.client.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"]
        self.path = f"/v1/endpoints/{self.endpoint}/test"
        self.engine = server.services.context.engine.status
        self.engine.sent_tests.clear()

    def set_outcome(self, outcome: Outcome) -> None:
        """Make all tests end with this outcome."""
        status = Status.DELIVERED if outcome is Outcome.DELIVERED else Status.FAILED

        async def settle(leased: Any) -> None:
            await self.server.database.settle([self.server.settlement(leased, outcome, status)])

        self.engine.on_test = settle

    def audited(self) -> list[Any]:
        """Return the audit entries of the account's tests."""
        return list(self.client.get("/v1/audit-log?action=endpoint.tested").json["data"])


@pytest.fixture
def owner(server: Any) -> Iterator[Owner]:
    """A new account."""
    found = Owner(server)
    yield found
    found.engine.on_test = found.engine.busy = None


@pytest.mark.parametrize("outcome", [Outcome.DELIVERED, Outcome.SERVER_ERROR])
def test_the_response_is_the_finished_attempt(owner: Owner, outcome: Outcome) -> None:
    owner.set_outcome(outcome)
    response = owner.client.post(owner.path)
    assert response.status == 200
    attempt = response.json
    assert (attempt["trigger"], attempt["number"], attempt["outcome"]) == ("test", 1, outcome.text)
    assert (attempt["hint"] is None) == (outcome is Outcome.DELIVERED)
    assert owner.client.get(f"/v1/deliveries/{attempt['delivery']}/attempts").json["data"] == [attempt]
    delivery = owner.client.get(f"/v1/deliveries/{attempt['delivery']}").json
    assert delivery["status"] == ("delivered" if outcome is Outcome.DELIVERED else "failed")
    assert delivery["endpoint"] == owner.endpoint
    assert owner.client.get(f"/v1/events/{delivery['event']}").json["type"] == "movement.analytics.created"
    [entry] = owner.audited()
    assert entry["subject"] == owner.endpoint
    assert entry["details"] == {"type": "movement.analytics.created", "delivery": attempt["delivery"]}


def test_the_response_is_the_delivery_if_the_attempt_is_slow(server: Any, owner: Owner) -> None:
    response = owner.client.post(owner.path, {})
    assert response.status == 202
    delivery = response.json
    assert (delivery["status"], delivery["next_attempt_at"]) == ("pending", None)
    [leased] = owner.engine.sent_tests
    server.settle(leased, Outcome.DELIVERED, Status.DELIVERED)
    assert owner.client.get(f"/v1/deliveries/{delivery['id']}").json["status"] == "delivered"


def test_the_example_of_the_type_is_sent_to_this_endpoint_only(server: Any, owner: Owner) -> None:
    owner.client.post("/v1/endpoints", {"url": "https://example.com/other"})
    own = {"description": "a", "example": {"object": {"name": "Tomás"}}}
    assert server.operator.put("/v1/event-types/trial.named", own).status == 201
    assert server.operator.put("/v1/event-types/trial.bare", {"description": "a"}).status == 201
    examples = {
        "trial.named": own["example"],
        "trial.bare": {"object": {}},
        "export.completed": server.operator.get("/v1/event-types/export.completed").json["example"],
    }
    for name, example in examples.items():
        delivery = owner.client.post(owner.path, {"type": name}).json
        leased = owner.engine.sent_tests[-1]
        assert (leased.trigger, leased.fence) == (Trigger.TEST, 1)
        assert json.loads(envelope.data_of(leased.body)) == example
        body = owner.client.get(f"/v1/events/{delivery['event']}").json["body"]
        assert (body["type"], body["data"], body["id"]) == (name, example, delivery["event"])
        assert len(owner.client.get(f"/v1/events/{delivery['event']}/deliveries").json["data"]) == 1
        explained = owner.client.get(f"/v1/events/{delivery['event']}/explain").json["data"]
        assert [each["reason"] for each in explained] == ["not_subscribed", "pending"]


def test_the_default_type_matches_the_subscription(owner: Owner) -> None:
    owner.client.patch(f"/v1/endpoints/{owner.endpoint}", {"event_types": ["export.*"]})
    assert owner.client.post(owner.path).json["type"] == "export.completed"
    # The caller can choose any other type.
    assert owner.client.post(owner.path, {"type": "athlete.created"}).json["type"] == "athlete.created"
    assert owner.client.post(owner.path, {"type": None}).json["type"] == "export.completed"


def test_a_test_event_is_sent_in_every_endpoint_state(server: Any, owner: Owner) -> None:
    owner.set_outcome(Outcome.DELIVERED)
    for client, verb in ((owner.client, "pause"), (server.operator, "disable"), (owner.client, "enable")):
        assert client.post(f"/v1/endpoints/{owner.endpoint}/{verb}").status == 200
        assert owner.client.post(owner.path).json["outcome"] == "delivered"


def test_types_that_cannot_be_tested_are_rejected(server: Any, owner: Owner) -> None:
    server.operator.put("/v1/event-types/trial.old", {"description": "a", "archived": True})
    for name, code in (("no.such", "event_type_unknown"), ("trial.old", "event_type_archived")):
        assert owner.client.post(owner.path, {"type": name}).problems == {("type", code)}
    wrong = owner.client.post(owner.path, {"type": 5, "now": True}, Idempotency_Key="x" * 300)
    assert wrong.problems == {
        ("type", "type_text"),
        ("now", "unknown_field"),
        ("Idempotency-Key", "idempotency_key_invalid"),
    }
    assert owner.engine.sent_tests == []
    assert owner.audited() == []


@pytest.mark.parametrize(
    ("busy", "status", "code", "retry_after"),
    [
        (Busy.STOPPED, 503, "unavailable", "1"),
        (Busy.FULL, 503, "unavailable", "1"),
        (Busy.RATE_LIMITED, 429, "rate_limited", "1"),
        (Busy.IN_FLIGHT, 409, "conflict", None),
        (Busy.DELETED, 409, "conflict", None),
    ],
)
def test_a_test_that_cannot_start_is_rejected_with_a_cause(
    owner: Owner, busy: Busy, status: int, code: str, retry_after: str | None
) -> None:
    owner.engine.busy = busy
    rejected = owner.client.post(owner.path)
    assert (rejected.status, rejected.code) == (status, code)
    assert rejected.headers.get("retry-after") == retry_after
    assert rejected.json["detail"] != "The database is temporarily unavailable. Try again in a moment."
    assert (owner.audited(), owner.engine.sent_tests) == ([], [])


def test_a_repeated_request_returns_the_same_attempt(owner: Owner) -> None:
    owner.set_outcome(Outcome.DELIVERED)
    first = owner.client.post(owner.path, Idempotency_Key="once")
    again = owner.client.post(owner.path, Idempotency_Key="once")
    assert (first.status, again.status, again.json) == (200, 200, first.json)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    other = owner.client.post(owner.path, {"type": "athlete.created"}, Idempotency_Key="once")
    assert (other.status, other.code) == (409, "idempotency_conflict")
    assert (len(owner.engine.sent_tests), len(owner.audited())) == (1, 1)


def test_concurrent_requests_send_one_test(server: Any, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request detects the used idempotency key only when it stores the test."""
    owner.set_outcome(Outcome.DELIVERED)
    first = owner.client.post(owner.path, Idempotency_Key="at once")

    async def find_no_event(*_: Any) -> None:
        return None

    with monkeypatch.context() as patched:
        patched.setattr(server.services.endpoint_tests, "_earlier_event", find_no_event)
        again = owner.client.post(owner.path, Idempotency_Key="at once")
    assert (again.status, again.json) == (200, first.json)
    assert again.headers["idempotency-replayed"] == "true"
    assert len(owner.engine.abandoned) == 1


def test_a_test_without_an_audit_entry_is_not_sent(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise Unavailable("disk full")

    owner.engine.abandoned.clear()
    with monkeypatch.context() as patched:
        patched.setattr(audit, "add", fail)
        assert owner.client.post(owner.path, Idempotency_Key="later").code == "unavailable"
    assert (owner.engine.sent_tests, len(owner.engine.abandoned)) == ([], 1)
    assert owner.client.post(owner.path, Idempotency_Key="later").status == 202
