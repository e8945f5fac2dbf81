"""Deliveries, attempts, resend and cancel."""

from typing import Any

import pytest

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.core.timestamps import format_timestamp
from uplift_server.store import audit
from uplift_server.store.errors import Unavailable


class Owner:
    """An account with an endpoint whose registration event is delivered."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.account = server.account()
        self.client = server.owner(self.account)
        self.endpoint = self.new_endpoint()

    def new_endpoint(self) -> str:
        """Create another endpoint whose registration event is delivered."""
        endpoint = str(self.client.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"])
        [registration] = self.server.lease(endpoint)
        self.server.settle(registration, Outcome.DELIVERED, Status.DELIVERED)
        return endpoint

    def delivery(self, status: Status = Status.PENDING, **event: Any) -> str:
        """Create a delivery to the endpoint, and return its ID."""
        name = self.server.event(self.account, {self.endpoint: status}, **event)
        [delivery] = self.client.get(f"/v1/events/{name}/deliveries").json["data"]
        return str(delivery["id"])

    def failed(self) -> str:
        """Create a delivery that failed after one attempt, and return its ID."""
        delivery = self.delivery()
        [leased] = self.server.lease(self.endpoint)
        self.server.settle(leased, Outcome.SERVER_ERROR, Status.FAILED)
        return delivery


@pytest.fixture
def owner(server: Any) -> Owner:
    """A new account."""
    return Owner(server)


def test_a_delivery_shows_its_current_status(server: Any, owner: Owner) -> None:
    """Covers pending, in flight, waiting for a retry, and failed."""
    delivery = owner.delivery()
    path = f"/v1/deliveries/{delivery}"
    waiting = owner.client.get(path).json
    assert waiting == {
        "id": delivery,
        "event": waiting["event"],
        "endpoint": owner.endpoint,
        "type": "movement.analytics.created",
        "object_id": None,
        "test": False,
        "status": "pending",
        "attempts_made": 0,
        "waiting_for": "turn",
        "blocked_by": None,
        "next_attempt_at": waiting["created_at"],
        "last_outcome": None,
        "created_at": waiting["created_at"],
        "completed_at": None,
        "failed_reason": None,
    }
    [leased] = server.lease(owner.endpoint)
    in_flight = owner.client.get(path).json
    assert (in_flight["status"], in_flight["waiting_for"], in_flight["next_attempt_at"]) == ("pending", None, None)
    server.settle(leased, Outcome.TIMEOUT, Status.PENDING, due_at=1)
    retrying = owner.client.get(path).json
    assert (retrying["attempts_made"], retrying["last_outcome"]) == (1, "timeout")
    assert retrying["next_attempt_at"] == "1970-01-01T00:00:00.001Z"
    [leased] = server.lease(owner.endpoint)
    server.settle(leased, Outcome.SERVER_ERROR, Status.FAILED)
    failed = owner.client.get(path).json
    assert (failed["status"], failed["failed_reason"], failed["attempts_made"]) == ("failed", "exhausted", 2)
    assert failed["completed_at"] is not None
    assert failed["waiting_for"] is failed["next_attempt_at"] is None


def test_a_delivery_shows_that_it_waits_for_a_probe(server: Any, owner: Owner) -> None:
    """All lists show this for due deliveries, in memory or not, but not for scheduled deliveries or ones in flight."""
    engine = server.services.context.engine.status
    later, in_flight, in_memory, _ = (owner.delivery() for _ in range(4))
    first, _, third, _ = sorted(server.lease(owner.endpoint), key=lambda each: each.event_seq)
    now = server.services.context.now()
    server.settle(first, Outcome.TIMEOUT, Status.PENDING, due_at=now + 3_600_000)
    due = owner.delivery()
    probe_at = now + 60_000
    engine.waiting.append(third)
    engine.probes[third.endpoint_seq] = probe_at
    probe_text = format_timestamp(probe_at)

    listed = owner.client.get(f"/v1/deliveries?endpoint={owner.endpoint}&status=pending").json["data"]
    found = {each["id"]: (each["waiting_for"], each["next_attempt_at"]) for each in listed}
    assert found[later] == ("schedule", format_timestamp(now + 3_600_000))
    assert found[in_flight] == (None, None)
    assert found[in_memory] == found[due] == ("probe", probe_text)
    of_endpoint = owner.client.get(f"/v1/endpoints/{owner.endpoint}/deliveries?status=pending").json["data"]
    assert of_endpoint == listed
    for each in listed:
        assert owner.client.get(f"/v1/deliveries/{each['id']}").json == each
        assert owner.client.get(f"/v1/events/{each['event']}/deliveries").json["data"] == [each]
        [explained] = owner.client.get(f"/v1/events/{each['event']}/explain").json["data"]
        assert ("circuit breaker is open. The delivery waits" in explained["text"]) is (each["waiting_for"] == "probe")
        assert ("in flight" in explained["text"]) is (each["waiting_for"] is None)


def test_a_delivery_of_another_process_is_not_shown_as_in_flight(server: Any, owner: Owner) -> None:
    delivery = owner.delivery()
    [leased] = server.lease(owner.endpoint)
    server.services.context.engine.status.owned_by_others.add(leased.endpoint_seq)
    shown = owner.client.get(f"/v1/deliveries/{delivery}").json
    assert (shown["status"], shown["waiting_for"], shown["next_attempt_at"]) == ("pending", "worker", None)
    [explained] = owner.client.get(f"/v1/events/{shown['event']}/explain").json["data"]
    assert "in flight or queued" in explained["text"]


def test_attempts_have_all_fields(server: Any, owner: Owner) -> None:
    """Attempts are listed newest first, with a hint, and with the response if there was one.

    Custom header values are masked, even if a release up to 0.1.1 stored them as plain text.
    """
    delivery = owner.delivery()
    [leased] = server.lease(owner.endpoint)
    server.settle(leased, Outcome.TIMEOUT, Status.PENDING, due_at=1)
    [leased] = server.lease(owner.endpoint)
    server.settle(leased, Outcome.SERVER_ERROR, Status.FAILED)
    path = f"/v1/deliveries/{delivery}/attempts"
    first = owner.client.get(f"{path}?limit=1").json
    [shown] = first["data"]
    event = owner.client.get(f"/v1/deliveries/{delivery}").json["event"]
    hint = shown.pop("hint")
    assert "500" in hint
    assert shown == {
        "id": shown["id"],
        "delivery": delivery,
        "event": event,
        "endpoint": owner.endpoint,
        "number": 2,
        "trigger": "schedule",
        "started_at": shown["started_at"],
        "duration_ms": 12.3,
        "timings": {"dns_ms": None, "connect_ms": 1, "tls_ms": 2, "first_byte_ms": 3},
        "status_code": 500,
        "outcome": "server_error",
        "error": None,
        "remote_address": "192.0.2.1:443",
        "request": {"headers": {"host": "a", "x-twice": "********, ********"}},
        "response": {
            "headers": {"server": "nginx"},
            "body": "oh no �",
            "body_truncated": True,
            "first_line": "oh no �",
        },
    }
    assert shown["id"].startswith("att_")
    [earlier] = owner.client.get(f"{path}?limit=1&cursor={first['next_cursor']}").json["data"]
    assert (earlier["number"], earlier["outcome"], earlier["status_code"]) == (1, "timeout", None)
    assert earlier["response"] is None
    assert earlier["hint"]


def test_lists_of_deliveries_are_filtered(server: Any, owner: Owner) -> None:
    """Covers filters by status, type, endpoint and time, in lists of an account and of an endpoint, on all pages."""
    at = 1_900_000_000_000
    other = owner.new_endpoint()
    created: list[tuple[str, str, Status, str]] = []
    for n in range(12):
        status = list(Status)[n % 5]
        name = "athlete.updated" if n % 2 else "movement.analytics.created"
        event = server.event(
            owner.account, {owner.endpoint: status, other: Status.HELD}, type_name=name, created_at=at + n
        )
        created += [(event, owner.endpoint, status, name), (event, other, Status.HELD, name)]
    after = "created_after=2030-03-17T17:46:39.999Z"

    def walk(path: str) -> list[tuple[str, str, str, str]]:
        found: list[tuple[str, str, str, str]] = []
        cursor = ""
        while True:
            page = owner.client.get(f"{path}{cursor}").json
            found += [(each["event"], each["endpoint"], each["status"], each["type"]) for each in page["data"]]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def expected(keep: Any) -> list[tuple[str, str, str, str]]:
        # The newest endpoint of an event comes first.
        return [
            (event, endpoint, status.text, name)
            for event, endpoint, status, name in created[::-1]
            if keep(endpoint, status, name)
        ]

    for limit in (1, 5, 500):
        lists = f"/v1/deliveries?limit={limit}&{after}"
        assert walk(lists) == expected(lambda *_: True)
        for status in Status:
            assert walk(f"{lists}&status={status.text}") == expected(lambda _e, s, _n, status=status: s is status)
        assert walk(f"{lists}&type=athlete.updated") == expected(lambda _e, _s, n: n == "athlete.updated")
        assert walk(f"{lists}&type=athlete.updated&status=held") == expected(
            lambda _e, s, n: n == "athlete.updated" and s is Status.HELD
        )
        assert walk(f"{lists}&endpoint={other}") == expected(lambda e, _s, _n: e == other)
        mine = f"/v1/endpoints/{owner.endpoint}/deliveries?limit={limit}&{after}"
        assert walk(mine) == expected(lambda e, _s, _n: e == owner.endpoint)
        assert walk(f"{mine}&status=failed") == expected(lambda e, s, _n: e == owner.endpoint and s is Status.FAILED)
    assert len(walk(f"/v1/deliveries?{after}&created_before=2030-03-17T17:46:40.002Z")) == 4
    # Without a filter, the list includes the registration events.
    assert len(walk("/v1/deliveries?limit=500")) == 24 + 2
    spanning = server.operator.get(f"/v1/deliveries?{after}&status=failed").json["data"]
    assert {each["account"] for each in spanning} == {owner.account}
    assert [each["event"] for each in spanning] == [each[0] for each in expected(lambda _e, s, _n: s is Status.FAILED)]
    assert server.operator.get(f"/v1/endpoints/{other}/deliveries?limit=1").json["data"][0]["account"] == owner.account


def test_all_problems_of_a_query_are_reported(server: Any, owner: Owner) -> None:
    """One response reports unknown statuses, endpoints, types and parameters."""
    response = owner.client.get("/v1/deliveries?status=lost&endpoint=ep_1&type=no.such&limit=x&a=b")
    assert response.problems == {
        ("status", "value_unknown"),
        ("endpoint", "endpoint_unknown"),
        ("type", "event_type_unknown"),
        ("limit", "type_number"),
        ("a", "unknown_field"),
    }


@pytest.mark.parametrize("status", [Status.DELIVERED, Status.FAILED, Status.HELD, Status.CANCELLED, Status.PENDING])
def test_a_resend_leases_a_delivery_for_the_engine(server: Any, owner: Owner, status: Status) -> None:
    """The engine gets the delivery at once, with the earlier status to restore if the resend fails."""
    delivery = owner.delivery(status)
    resent = server.services.context.engine.status.resent
    resent.clear()
    response = owner.client.post(f"/v1/deliveries/{delivery}/resend")
    assert response.status == 202
    assert (response.json["id"], response.json["status"]) == (delivery, "pending")
    [leased] = resent
    assert server.lease(owner.endpoint) == []
    assert (leased.trigger, leased.resume_status) == (Trigger.RESEND, status)
    assert (leased.resume_due_at is not None) == (status is Status.PENDING)
    server.settle(leased, Outcome.DELIVERED, Status.DELIVERED)
    assert owner.client.get(f"/v1/deliveries/{delivery}/attempts").json["data"][0]["trigger"] == "resend"


def test_a_resend_is_rejected_in_other_states(server: Any, owner: Owner) -> None:
    """Covers in-flight, already resent and expired deliveries, disabled and deleted endpoints, and unknown fields."""
    delivery = owner.delivery()
    path = f"/v1/deliveries/{delivery}/resend"
    assert owner.client.post(path, {"now": True}).problems == {("now", "unknown_field")}
    [leased] = server.lease(owner.endpoint)
    in_flight = owner.client.post(path)
    assert (in_flight.status, in_flight.code) == (409, "conflict")
    server.settle(leased, Outcome.TIMEOUT, Status.FAILED)
    assert owner.client.post(path, {}).status == 202
    assert owner.client.post(path).code == "conflict"

    expired = owner.delivery(Status.FAILED, created_at=1_700_000_000_000, expires_at=1_700_000_001_000)
    assert owner.client.post(f"/v1/deliveries/{expired}/resend").code == "conflict"

    failed = owner.delivery(Status.FAILED)
    for client, verb in ((owner.client, "pause"), (server.operator, "disable")):
        assert client.post(f"/v1/endpoints/{owner.endpoint}/{verb}").status == 200
        off = owner.client.post(f"/v1/deliveries/{failed}/resend")
        assert (off.status, off.code) == (409, "conflict")
        assert f"The endpoint is {verb}d. Enable the endpoint, then try again." == off.json["detail"]
    assert owner.client.delete(f"/v1/endpoints/{owner.endpoint}").status == 204
    gone = owner.client.post(f"/v1/deliveries/{expired}/resend")
    assert (gone.status, gone.code) == (409, "conflict")
    # The delivery stays readable.
    assert owner.client.get(f"/v1/deliveries/{expired}").status == 200


def test_a_delivery_in_memory_is_resent_at_once(server: Any, owner: Owner) -> None:
    """The delivery keeps a due time, so that it is due again if the resend fails."""
    engine = server.services.context.engine.status
    delivery = owner.delivery()
    engine.waiting[:] = server.lease(owner.endpoint)
    [waited] = engine.waiting
    engine.resent.clear()
    assert owner.client.post(f"/v1/deliveries/{delivery}/resend").status == 202
    [leased] = engine.resent
    assert (leased.fence, leased.resume_status) == (waited.fence + 1, Status.PENDING)
    assert leased.resume_due_at <= server.services.context.now()
    assert engine.waiting == []


@pytest.mark.parametrize("status", [Status.PENDING, Status.HELD])
def test_pending_and_held_deliveries_can_be_cancelled(server: Any, owner: Owner, status: Status) -> None:
    """A second cancel is rejected, and the delivery is not leased again."""
    delivery = owner.delivery(status)
    path = f"/v1/deliveries/{delivery}"
    assert owner.client.post(f"{path}/cancel", {"now": True}).problems == {("now", "unknown_field")}
    cancelled = owner.client.post(f"{path}/cancel")
    assert (cancelled.status, cancelled.json["id"], cancelled.json["status"]) == (200, delivery, "cancelled")
    assert cancelled.json == owner.client.get(path).json
    assert (cancelled.json["completed_at"] is None, cancelled.json["next_attempt_at"]) == (False, None)
    assert server.lease(owner.endpoint) == []
    again = owner.client.post(f"{path}/cancel")
    assert (again.status, again.code) == (409, "conflict")
    # A resend still works.
    assert owner.client.post(f"{path}/resend").status == 202


def test_a_delivery_in_memory_is_removed_and_cancelled(server: Any, owner: Owner) -> None:
    engine = server.services.context.engine.status
    delivery = owner.delivery()
    engine.waiting[:] = server.lease(owner.endpoint)
    [leased] = engine.waiting
    assert owner.client.post(f"/v1/deliveries/{delivery}/cancel").json["status"] == "cancelled"
    assert (engine.waiting, engine.released) == ([], [])
    # A settlement of the old lease changes nothing.
    server.settle(leased, Outcome.TIMEOUT, Status.PENDING, due_at=1)
    assert owner.client.get(f"/v1/deliveries/{delivery}").json["status"] == "cancelled"


@pytest.mark.parametrize("status", [Status.DELIVERED, Status.FAILED, Status.CANCELLED])
def test_a_finished_delivery_cannot_be_cancelled(owner: Owner, status: Status) -> None:
    delivery = owner.delivery(status)
    rejected = owner.client.post(f"/v1/deliveries/{delivery}/cancel")
    assert (rejected.status, rejected.code) == (409, "conflict")
    assert f"The delivery has the status {status.text}" in rejected.json["detail"]
    assert owner.client.get(f"/v1/deliveries/{delivery}").json["status"] == status.text


def test_a_delivery_in_flight_cannot_be_cancelled(server: Any, owner: Owner) -> None:
    delivery = owner.delivery()
    [leased] = server.lease(owner.endpoint)
    rejected = owner.client.post(f"/v1/deliveries/{delivery}/cancel")
    assert (rejected.status, rejected.code) == (409, "conflict")
    assert "in flight" in rejected.json["detail"]
    server.settle(leased, Outcome.TIMEOUT, Status.PENDING, due_at=2**40)
    assert owner.client.post(f"/v1/deliveries/{delivery}/cancel").json["status"] == "cancelled"


@pytest.mark.parametrize("verb", ["cancel", "resend"])
def test_a_removed_delivery_returns_to_memory_after_a_failed_change(
    server: Any, owner: Owner, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = server.services.context.engine.status
    delivery = owner.delivery()
    engine.waiting[:] = server.lease(owner.endpoint)
    [leased] = engine.waiting

    def fail(*_: Any, **__: Any) -> None:
        raise Unavailable("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(audit, "add", fail)
        assert owner.client.post(f"/v1/deliveries/{delivery}/{verb}").code == "unavailable"
    assert engine.released.pop() is leased
    assert owner.client.get(f"/v1/deliveries/{delivery}").json["status"] == "pending"


def test_invalid_ids_are_not_found(server: Any, owner: Owner) -> None:
    """Covers malformed and unknown IDs."""
    for delivery in ("dlv_", "dlv_" + "0" * 44, "nonsense", owner.endpoint):
        for response in (
            owner.client.get(f"/v1/deliveries/{delivery}"),
            owner.client.get(f"/v1/deliveries/{delivery}/attempts"),
            owner.client.post(f"/v1/deliveries/{delivery}/resend"),
            owner.client.post(f"/v1/deliveries/{delivery}/cancel"),
        ):
            assert response.code == "not_found"
