"""The audit log: each change and its entry are stored in one transaction, and no entry contains a secret."""

import re
from typing import Any

import pytest

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.people.audit import ACTIONS
from uplift_server.store import audit
from uplift_server.store.errors import Unavailable


def entries(client: Any, query: str = "") -> list[dict[str, Any]]:
    """Return the entries of the audit log, newest first."""
    response = client.get(f"/v1/audit-log?limit=500{query}")
    assert response.status == 200, response.body
    found: list[dict[str, Any]] = response.json["data"]
    assert all(entry["action"] in ACTIONS for entry in found)
    return found


def audited(client: Any, query: str = "") -> list[tuple[str, str, Any]]:
    """Return the action, the subject and the details of each entry, oldest first."""
    return [(each["action"], each["subject"], each["details"]) for each in reversed(entries(client, query))]


def test_the_changes_of_an_account_are_audited(server: Any) -> None:
    account = server.account("Riverside")
    acting = server.client(server.operator_key, account)
    server.operator.patch(f"/v1/accounts/{account}", {"name": "Lakeside"})
    key = server.operator.post(f"/v1/accounts/{account}/keys", {"name": "k", "scopes": ["listen"]}).json
    server.operator.delete(f"/v1/accounts/{account}/keys/{key['id']}")

    assert audited(acting) == [
        ("account.created", account, {"name": "Riverside"}),
        ("account.changed", account, {"changed": ["name"], "from": {"name": "Riverside"}, "to": {"name": "Lakeside"}}),
        ("key.created", key["id"], {"name": "k", "scopes": ["listen"]}),
        ("key.revoked", key["id"], {"name": "k"}),
    ]
    server.owner(account)
    server.operator.delete(f"/v1/accounts/{account}")

    newest = entries(server.operator)[0]
    assert (newest["action"], newest["account"]) == ("account.deleted", account)
    assert newest["details"] == {"name": "Lakeside", "keys": 1, "endpoints": 0}


def test_the_changes_of_an_endpoint_are_audited_without_secrets(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    key = server.operator.get(f"/v1/accounts/{account}/keys").json["data"][0]["id"]
    body = {"url": "https://example.com/a?token=hush", "secret": "hush-hush-hush-hush", "headers": {"x-key": "hush"}}
    endpoint = owner.post("/v1/endpoints", body).json["id"]
    change = {"url": "https://example.com/b?token=hush2", "headers": {"x-key": "hush2"}, "max_in_flight": 4}
    owner.patch(f"/v1/endpoints/{endpoint}", change)
    owner.delete(f"/v1/endpoints/{endpoint}")

    assert audited(owner)[2:] == [
        ("endpoint.created", endpoint, {"url": "https://example.com/a", "event_types": []}),
        (
            "endpoint.changed",
            endpoint,
            {
                "changed": ["url", "max_in_flight", "headers"],
                "from": {"url": "https://example.com/a", "max_in_flight": None},
                "to": {"url": "https://example.com/b", "max_in_flight": 4},
            },
        ),
        ("endpoint.deleted", endpoint, {"url": "https://example.com/b"}),
    ]
    newest = entries(owner)[0]
    assert newest["actor"] == {"kind": "key", "id": key, "name": "test"}
    assert newest["address"] == "127.0.0.1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", newest["at"])
    assert b"hush" not in owner.get("/v1/audit-log").body


def test_only_operators_see_changes_of_the_catalog(server: Any) -> None:
    owner = server.owner(server.account())
    path = "/v1/event-types/audited.thing"
    server.operator.put(path, {"description": "a"})
    server.operator.put(path, {"description": "b", "archived": True})
    server.operator.put(path, {"description": "b", "archived": True})
    server.operator.delete(path)

    published = {"changed": ["description", "archived"], "from": {"archived": False}, "to": {"archived": True}}
    assert [each for each in audited(server.operator) if each[1] == "audited.thing"] == [
        ("event_type.published", "audited.thing", {"new": True}),
        ("event_type.published", "audited.thing", published),
        ("event_type.deleted", "audited.thing", {}),
    ]
    assert not [each for each in audited(owner) if each[0].startswith("event_type.")]
    assert "account" not in entries(server.operator, "&action=event_type.deleted")[0]


def test_a_resend_is_audited(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    endpoint = owner.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"]
    event = server.event(account, {endpoint: Status.PENDING})
    for leased in server.lease(endpoint):
        server.settle(leased, Outcome.SERVER_ERROR, Status.FAILED)
    delivery = owner.get(f"/v1/events/{event}/deliveries").json["data"][0]["id"]

    assert owner.post(f"/v1/deliveries/{delivery}/resend").status == 202
    assert audited(owner)[-1] == ("delivery.resent", delivery, {"status": "failed"})
    assert owner.post(f"/v1/deliveries/{delivery}/resend").status == 409
    assert len(entries(owner, "&action=delivery.resent")) == 1


def test_a_cancel_is_audited(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    endpoint = owner.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"]
    event = server.event(account, {endpoint: Status.HELD})
    delivery = owner.get(f"/v1/events/{event}/deliveries").json["data"][0]["id"]

    assert owner.post(f"/v1/deliveries/{delivery}/cancel").status == 200
    assert audited(owner)[-1] == ("delivery.cancelled", delivery, {"status": "held"})
    assert owner.post(f"/v1/deliveries/{delivery}/cancel").status == 409
    assert len(entries(owner, "&action=delivery.cancelled")) == 1


def test_requests_without_a_change_are_not_audited(server: Any) -> None:
    """Covers repeated and rejected requests, updates without changes, and deletions of deleted objects."""
    account = server.account()
    owner, acting = server.owner(account), server.client(server.operator_key, account)
    created = [
        owner.post("/v1/endpoints", {"url": "https://example.com/a"}, Idempotency_Key="one").json for _ in range(2)
    ]
    endpoint = created[0]["id"]
    body = {"url": "https://example.com/a", "event_types": [], "headers": {}}
    assert owner.patch(f"/v1/endpoints/{endpoint}", body).status == 200
    owner.post("/v1/endpoints", {"url": "http://example.com/a"})
    server.operator.patch(f"/v1/accounts/{account}", {"name": "Riverside"})
    for _ in range(2):
        server.operator.post(f"/v1/accounts/{account}/keys", {"name": "k"}, Idempotency_Key="two")
        server.operator.post("/v1/accounts", {"name": "Twice"}, Idempotency_Key="audited")
        owner.delete(f"/v1/endpoints/{endpoint}")

    actions = [action for action, _, _ in audited(acting)]
    assert actions == ["account.created", "key.created", "endpoint.created", "key.created", "endpoint.deleted"]
    twice = [each for each in entries(server.operator, "&action=account.created") if each["details"]["name"] == "Twice"]
    assert len(twice) == 1


def test_a_failed_audit_entry_rolls_back_the_change(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change and its entry are in one transaction."""
    owner = server.owner(server.account())

    def fail(*_args: object) -> None:
        raise Unavailable("no room")

    monkeypatch.setattr(audit, "add", fail)
    assert owner.post("/v1/endpoints", {"url": "https://example.com/a"}).status == 503
    monkeypatch.undo()
    assert owner.get("/v1/endpoints").json["data"] == []


def test_accounts_do_not_see_addresses_of_operators(server: Any) -> None:
    account = server.account()
    owner, acting = server.owner(account), server.client(server.operator_key, account)

    assert [each["address"] for each in entries(owner)] == [None, None]
    assert [each["address"] for each in entries(acting)] == ["127.0.0.1", "127.0.0.1"]
    assert {each["actor"]["kind"] for each in entries(owner)} == {"operator"}


def test_the_server_creates_the_first_operator_key(server: Any) -> None:
    [created] = entries(server.operator, "&actor=system&action=key.created")
    assert created["actor"] == {"kind": "system", "id": None, "name": "Uplift Webhooks"}
    assert (created["details"], created["address"]) == ({"name": "operator"}, None)


def test_the_audit_log_supports_filters_and_cursors(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    key = server.operator.get(f"/v1/accounts/{account}/keys").json["data"][0]["id"]
    for number in range(5):
        owner.post("/v1/endpoints", {"url": f"https://example.com/{number}"})

    assert len(entries(owner, f"&actor={key}")) == len(entries(owner, "&actor=key")) == 5
    assert entries(owner, "&actor=member") == entries(owner, "&actor=key_unknown") == []
    at = entries(owner)[2]["at"]
    assert all(each["at"] > at for each in entries(owner, f"&created_after={at}"))
    assert all(each["at"] < at for each in entries(owner, f"&created_before={at}"))
    pages, cursor = [], ""
    while True:
        response = owner.get(f"/v1/audit-log?limit=3{cursor}").json
        pages.append(len(response["data"]))
        if response["next_cursor"] is None:
            break
        cursor = f"&cursor={response['next_cursor']}"
    assert pages == [3, 3, 1]


def test_an_unknown_action_gets_a_suggestion(server: Any) -> None:
    response = server.operator.get("/v1/audit-log?action=endpoint.change&created_after=x")
    assert response.problems == {("action", "action_unknown"), ("created_after", "instant_invalid")}
    assert "endpoint.changed?" in response.body.decode()
    assert "API reference" in server.operator.get("/v1/audit-log?action=xyz").body.decode()
