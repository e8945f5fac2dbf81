"""Pausing, disabling and enabling endpoints: responses, engine calls and the audit log."""

from typing import Any

import pytest

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.limits import HELD_COUNTED_MAX
from uplift_server.core.people.notifications import NotificationKind, NotificationState
from uplift_server.store import audit, outbox
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import HeldAction


class Owner:
    """An account with an endpoint whose registration event is delivered, and the recorded engine calls."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.account = server.account()
        self.client = server.owner(self.account)
        self.endpoint = self.client.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"]
        self.path = f"/v1/endpoints/{self.endpoint}"
        [self.seq] = [seq for seq, live in self._cache.endpoints.items() if live.id_text == self.endpoint]
        [registration] = server.lease(self.endpoint)
        server.settle(registration, Outcome.DELIVERED, Status.DELIVERED)
        self.server.services.context.engine.status.state_changes.clear()

    @property
    def _cache(self) -> Any:
        return self.server.services.context.cache

    @property
    def record(self) -> Any:
        """The endpoint in the cache."""
        return self._cache.endpoints[self.seq].record

    def engine_calls(self) -> list[str]:
        """Return the engine calls for the endpoint since the last call of this method."""
        state_changes = self.server.services.context.engine.status.state_changes
        found = [change for change, seq in state_changes if seq == self.seq]
        state_changes.clear()
        return found

    def audited(self) -> list[tuple[str, Any]]:
        """Return the audit entries of the endpoint's states, oldest first."""
        entries = self.client.get("/v1/audit-log").json["data"]
        return [
            (each["action"], each["details"])
            for each in reversed(entries)
            if each["subject"] == self.endpoint and each["action"] != "endpoint.created"
        ]

    def hold(self, count: int) -> None:
        """Create held deliveries of the endpoint."""
        for _ in range(count):
            self.server.event(self.account, {self.endpoint: Status.HELD})


@pytest.fixture
def owner(server: Any) -> Owner:
    """A new account."""
    return Owner(server)


def test_an_endpoint_is_paused_and_enabled_again(owner: Owner) -> None:
    created = owner.client.get(owner.path).json
    assert (created["state"], created["disabled_reason"], created["held_deliveries"]) == ("enabled", None, 0)
    paused = owner.client.post(f"{owner.path}/pause")
    assert (paused.status, paused.json) == (200, {**created, "state": "paused"})
    assert owner.client.get(owner.path).json == paused.json
    assert (owner.engine_calls(), owner.record.state.text) == (["off"], "paused")
    enabled = owner.client.post(f"{owner.path}/enable", {"held": "send"})
    assert (enabled.status, enabled.json) == (200, created)
    assert (owner.engine_calls(), owner.record.state.text) == (["on"], "enabled")
    assert owner.audited() == [
        ("endpoint.paused", {"from": "enabled"}),
        ("endpoint.enabled", {"held": "send", "from": "paused"}),
    ]


def test_an_owner_can_enable_an_endpoint_that_an_operator_disabled(server: Any, owner: Owner) -> None:
    rejected = owner.client.post(f"{owner.path}/disable")
    assert (rejected.status, rejected.code) == (403, "forbidden")
    owner.client.post(f"{owner.path}/pause")
    disabled = server.client(server.operator_key, owner.account).post(f"{owner.path}/disable")
    assert (disabled.json["state"], disabled.json["disabled_reason"]) == ("disabled", "operator")
    assert server.operator.post(f"{owner.path}/disable").json == {**disabled.json, "account": owner.account}
    assert owner.client.post(f"{owner.path}/enable").json["state"] == "enabled"
    assert owner.engine_calls() == ["off", "off", "on"]
    assert owner.audited()[1:] == [
        ("endpoint.disabled", {"reason": "operator", "from": "paused"}),
        ("endpoint.enabled", {"held": "send", "from": "disabled", "from_reason": "operator"}),
    ]


@pytest.mark.parametrize("verb", ["pause", "disable"])
def test_pending_deliveries_count_as_held_in_the_response(server: Any, owner: Owner, verb: str) -> None:
    """Deliveries count even before they are held in the database. The engine is notified before they are held."""
    for _ in range(3):
        server.event(owner.account, {owner.endpoint: Status.PENDING})
    assert owner.client.get(owner.path).json["held_deliveries"] == 0
    stopped = server.operator.post(f"{owner.path}/{verb}").json
    assert stopped["held_deliveries"] == 3
    assert server.services.context.engine.status.hold_requests[-1] == (owner.seq, [("off", owner.seq)])
    owner.hold(2)
    assert owner.client.get(owner.path).json["held_deliveries"] == 5
    assert owner.client.post(f"{owner.path}/enable").json["held_deliveries"] == 2


def test_a_disabled_endpoint_cannot_be_paused(server: Any, owner: Owner) -> None:
    """The error says to enable the endpoint first."""
    server.operator.post(f"{owner.path}/disable")
    rejected = owner.client.post(f"{owner.path}/pause")
    assert (rejected.status, rejected.code) == (409, "conflict")
    assert "first enable it" in rejected.json["detail"]
    assert (owner.engine_calls(), len(owner.audited())) == (["off"], 1)


@pytest.mark.parametrize("calls", [["pause"], ["pause", "enable"], ["disable"], ["enable"]])
def test_repeating_the_last_call_changes_nothing(server: Any, owner: Owner, calls: list[str]) -> None:
    for verb in calls:
        response = server.operator.post(f"{owner.path}/{verb}")
    owner.engine_calls()
    before = (owner.record, owner.audited())
    assert server.operator.post(f"{owner.path}/{calls[-1]}").json == response.json
    assert (owner.record, owner.audited()) == before
    assert owner.engine_calls() == []


@pytest.mark.parametrize("verb", ["enable", "delete"])
def test_an_unsent_warning_is_withdrawn(server: Any, owner: Owner, verb: str) -> None:
    def warn(connection: Any) -> None:
        outbox.add(
            connection,
            NotificationKind.ENDPOINT_WARNED,
            account_seq=owner.record.account_seq,
            endpoint_seq=owner.seq,
            recipients=[(b"w" * 16, "coach@example.com")],
            facts={"endpoint": owner.endpoint},
            now=1,
        )

    def waiting(connection: Any) -> int:
        return len(outbox.page(connection, NotificationState.WAITING, limit=9).items)

    owner.client.post(f"{owner.path}/pause")
    server.run(lambda: server.database.write(warn))
    assert server.run(lambda: server.database.read(waiting)) == 1
    if verb == "enable":
        owner.client.post(f"{owner.path}/enable")
    else:
        owner.client.delete(owner.path)
    assert server.run(lambda: server.database.read(waiting)) == 0


@pytest.mark.parametrize("held", list(HeldAction))
def test_enabling_applies_an_action_to_held_deliveries(owner: Owner, held: HeldAction) -> None:
    owner.client.post(f"{owner.path}/pause")
    owner.hold(3)
    assert owner.client.get(owner.path).json["held_deliveries"] == 3
    assert owner.client.post(f"{owner.path}/enable", {"held": held.text}).status == 200
    assert owner.record.held_action is held
    assert owner.audited()[-1] == ("endpoint.enabled", {"held": held.text, "from": "paused"})


@pytest.mark.parametrize("body", [None, {}, {"held": None}, {"held": "send"}])
def test_held_deliveries_are_sent_by_default(owner: Owner, body: Any) -> None:
    owner.client.post(f"{owner.path}/pause")
    assert owner.client.post(f"{owner.path}/enable", body).status == 200
    assert owner.record.held_action is HeldAction.SEND


def test_kept_deliveries_are_released_by_enabling_again(owner: Owner) -> None:
    owner.client.post(f"{owner.path}/pause")
    owner.hold(2)
    owner.client.post(f"{owner.path}/enable", {"held": "keep"})
    owner.engine_calls()
    assert owner.client.post(f"{owner.path}/enable", {"held": "keep"}).status == 200
    assert owner.engine_calls() == []
    assert owner.client.post(f"{owner.path}/enable").json["state"] == "enabled"
    assert (owner.engine_calls(), owner.record.held_action) == (["held"], HeldAction.SEND)
    # The owner can change the action during the release.
    assert owner.client.post(f"{owner.path}/enable", {"held": "drop"}).json["state"] == "enabled"
    assert (owner.engine_calls(), owner.record.held_action) == (["held"], HeldAction.DROP)
    assert [details["held"] for action, details in owner.audited() if action == "endpoint.enabled"] == [
        "keep",
        "send",
        "drop",
    ]
    assert owner.audited()[-1] == ("endpoint.enabled", {"held": "drop", "from": "enabled"})


def test_enabling_an_endpoint_without_held_deliveries_changes_nothing(owner: Owner) -> None:
    before = owner.record
    assert owner.client.post(f"{owner.path}/enable", {"held": "drop"}).status == 200
    assert (owner.engine_calls(), owner.audited(), owner.record) == ([], [], before)


def test_the_endpoint_is_enabled_after_all_deliveries_are_held(server: Any, owner: Owner) -> None:
    owner.client.post(f"{owner.path}/pause")
    engine = server.services.context.engine.status
    engine.holding.add(owner.record.seq)
    rejected = owner.client.post(f"{owner.path}/enable", {"held": "drop"})
    assert (rejected.status, rejected.json["code"]) == (503, "unavailable")
    assert rejected.headers["retry-after"] == "1"
    assert owner.record.state.text == "paused"
    engine.holding.clear()
    assert owner.client.post(f"{owner.path}/enable", {"held": "drop"}).status == 200


def test_invalid_bodies_are_rejected(owner: Owner) -> None:
    enable = f"{owner.path}/enable"
    assert owner.client.post(enable, {"held": "burn"}).problems == {("held", "value_unknown")}
    assert owner.client.post(enable, {"hold": "send", "held": 1}).problems == {
        ("hold", "unknown_field"),
        ("held", "value_unknown"),
    }
    assert owner.client.post(f"{owner.path}/pause", {"now": True}).problems == {("now", "unknown_field")}
    assert owner.client.post("/v1/endpoints/ep_nonsense/pause").code == "not_found"
    assert owner.client.post(f"/v1/endpoints/ep_{'0' * 32}/enable").code == "not_found"
    assert (owner.engine_calls(), owner.audited()) == ([], [])


def test_a_deleted_endpoint_is_not_found(owner: Owner) -> None:
    owner.client.delete(owner.path)
    for verb in ("pause", "enable"):
        assert owner.client.post(f"{owner.path}/{verb}").code == "not_found"


def test_a_failed_audit_entry_rolls_back_the_change(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise Unavailable("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(audit, "add", fail)
        assert owner.client.post(f"{owner.path}/pause").code == "unavailable"
    assert owner.client.get(owner.path).json["state"] == "enabled"
    assert owner.engine_calls() == []


def test_held_deliveries_are_counted_up_to_a_limit(server: Any, owner: Owner) -> None:
    """Lists of endpoints show the count, too."""
    owner.client.post(f"{owner.path}/pause")
    other = owner.client.post("/v1/endpoints", {"url": "https://example.com/b"}).json
    assert other["held_deliveries"] == 0
    owner.hold(2)

    def counts() -> list[tuple[str, int]]:
        found = owner.client.get("/v1/endpoints").json["data"]
        return [(each["id"], each["held_deliveries"]) for each in found]

    assert counts() == [(other["id"], 0), (owner.endpoint, 2)]
    owner.hold(HELD_COUNTED_MAX)
    assert counts() == [(other["id"], 0), (owner.endpoint, HELD_COUNTED_MAX)]
