"""Operators create, update and delete accounts, and manage the API keys of accounts."""

import hashlib
import threading
from dataclasses import replace
from typing import Any

import pytest
from tests.caches import endpoint_cache

from uplift_server.core import ids
from uplift_server.core.security.scopes import DEFAULT_SCOPES
from uplift_server.service.startup import prepare

from .conftest import PROCESS_KEY


def test_an_account_is_created_updated_and_deleted(server: Any) -> None:
    """An update keeps the fields that it omits."""
    operator = server.operator
    created = operator.post("/v1/accounts", {"name": "Riverside", "contact_emails": ["coach@example.com"]})
    assert created.status == 201
    account = created.json
    assert set(account) == {"id", "uid", "name", "contact_emails", "metadata", "created_at", "updated_at"}
    assert account["id"].startswith("acc_")
    assert account["created_at"].endswith("Z")
    path = f"/v1/accounts/{account['id']}"
    assert operator.get(path).json == account
    assert operator.get("/v1/accounts?limit=1").json["data"] == [account]

    changed = operator.patch(path, {"contact_emails": []})
    assert changed.status == 200
    assert changed.json["name"] == "Riverside"
    assert changed.json["contact_emails"] == []
    assert operator.get(path).json == changed.json
    renamed = operator.patch(path, {"name": "Lakeside"}).json
    assert (renamed["name"], renamed["contact_emails"]) == ("Lakeside", [])

    deleted = operator.delete(path)
    assert (deleted.status, deleted.body) == (204, b"")
    for response in (operator.get(path), operator.patch(path, {"name": "x"}), operator.delete(path)):
        assert (response.status, response.code) == (404, "not_found")


def test_all_problems_of_an_account_are_reported_together(server: Any) -> None:
    """Covers missing, unknown and invalid fields and wrong types, in both POST and PATCH requests."""
    response = server.operator.post(
        "/v1/accounts", {"contact_emails": ["coach@example.com", 3, "nobody"], "plan": "big"}
    )
    assert response.problems == {
        ("name", "required"),
        ("contact_emails.1", "type_text"),
        ("contact_emails.1", "email_invalid"),
        ("plan", "unknown_field"),
    }
    account = server.account()
    response = server.operator.patch(f"/v1/accounts/{account}", {"name": " ", "contact_emails": ["a@example.com"] * 11})
    assert response.problems == {("name", "name_invalid"), ("contact_emails", "too_many")}
    assert server.operator.patch(f"/v1/accounts/{account}", {"name": None}).problems == {("name", "type_text")}


def test_a_key_is_shown_once_and_works_until_it_is_revoked(server: Any) -> None:
    """Only the response that creates the key contains it. The database has only its digest."""
    account = server.account()
    created = server.operator.post(f"/v1/accounts/{account}/keys", {"name": "receiver"})
    assert created.status == 201
    key = created.json
    assert key["key"].startswith("sk_")
    assert key["key"].endswith(key["ends_with"])
    assert key["account"] == account
    assert set(key["scopes"]) == DEFAULT_SCOPES
    owner = server.client(key["key"])
    assert owner.get("/v1/endpoints").status == 200

    listed = server.operator.get(f"/v1/accounts/{account}/keys").json["data"]
    assert listed == [{name: value for name, value in key.items() if name != "key"}]
    assert hashlib.sha256(key["key"].encode()).digest() in server.services.context.cache.keys

    path = f"/v1/accounts/{account}/keys/{key['id']}"
    assert server.operator.delete(path).status == 204
    assert (owner.get("/v1/endpoints").status, owner.get("/v1/endpoints").code) == (401, "unauthorized")
    assert server.operator.delete(path).code == "not_found"
    assert server.operator.get(f"/v1/accounts/{account}/keys").json == {
        "data": [],
        "next_cursor": None,
        "prev_cursor": None,
    }


def test_keys_have_their_requested_scopes(server: Any) -> None:
    """Covers given, empty and unknown scopes."""
    account = server.account()
    keys = f"/v1/accounts/{account}/keys"
    assert server.operator.post(keys, {"name": "a", "scopes": ["events:write"]}).json["scopes"] == ["events:write"]
    assert server.operator.post(keys, {"name": "a", "scopes": []}).json["scopes"] == []
    invalid = server.operator.post(keys, {"name": "", "scopes": ["events:write", "everything"], "x": 1})
    assert invalid.problems == {("name", "name_invalid"), ("scopes", "scope_unknown"), ("x", "unknown_field")}


def test_a_key_is_renamed_and_gets_an_expiry(server: Any) -> None:
    """An update keeps the fields that it omits, and null removes the expiry."""
    account, other = server.account(), server.account()
    keys = f"/v1/accounts/{account}/keys"
    expiry = "2099-01-31T00:00:00.000Z"
    made = server.operator.post(keys, {"name": "first", "expires_at": "2099-01-31T01:00:00+01:00"}).json
    assert made["expires_at"] == expiry
    path = f"{keys}/{made['id']}"
    shown = {name: value for name, value in made.items() if name != "key"}
    renamed = server.operator.patch(path, {"name": "second"})
    assert (renamed.status, renamed.json) == (200, {**shown, "name": "second"})
    assert server.operator.patch(path, {"expires_at": None}).json == {**shown, "name": "second", "expires_at": None}
    assert server.operator.get(keys).json["data"] == [{**shown, "name": "second", "expires_at": None}]
    assert server.client(made["key"]).get("/v1/endpoints").status == 200
    for body in ({"expires_at": "2020-01-01T00:00:00Z"}, {"expires_at": "soon"}, {"name": ""}, {"scopes": ["listen"]}):
        assert server.operator.patch(path, body).code == "validation_failed", body
    for wrong in (f"{keys}/key_{'0' * 32}", f"/v1/accounts/{other}/keys/{made['id']}"):
        assert server.operator.patch(wrong, {"name": "x"}).code == "not_found"
    changes = [each["details"] for each in server.operator.get(f"/v1/audit-log?subject={made['id']}").json["data"]]
    assert changes == [
        {"changed": ["expires_at"], "from": {"expires_at": expiry}, "to": {"expires_at": None}},
        {"changed": ["name"], "from": {"name": "first"}, "to": {"name": "second"}},
        {"name": "first", "scopes": sorted(DEFAULT_SCOPES), "expires_at": expiry},
    ]


def test_a_caller_reads_its_own_account(server: Any) -> None:
    """An operator must select the account."""
    account = server.account()
    shown = server.operator.get(f"/v1/accounts/{account}").json
    assert server.owner(account, []).get("/v1/account").json == shown
    assert server.client(server.operator_key, account).get("/v1/account").json == shown
    assert server.operator.get("/v1/account").code == "account_required"


def test_deleting_an_account_deletes_its_keys_and_endpoints(server: Any) -> None:
    """The key is rejected at once, the engine is notified of each endpoint, and other accounts are unaffected."""
    account, other = server.account(), server.account()
    owner, neighbor = server.owner(account), server.owner(other)
    endpoint = owner.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"]
    cache = server.services.context.cache
    seq = cache.endpoints_by_id[ids.parse_prefixed(ids.ENDPOINT, endpoint)].seq
    assert server.operator.delete(f"/v1/accounts/{account}").status == 204
    assert owner.get("/v1/endpoints").code == "unauthorized"
    assert seq in server.deleted_endpoints
    assert seq not in cache.endpoints
    assert server.operator.get(f"/v1/endpoints/{endpoint}").code == "not_found"
    assert server.client(server.operator_key, account).get("/v1/endpoints").code == "not_found"
    assert neighbor.get("/v1/endpoints").status == 200
    # The events stay readable.
    assert [each["account"] for each in server.operator.get("/v1/events?limit=1").json["data"]] == [account]


@pytest.mark.parametrize("account", ["acc_", "acc_xyz", "nonsense", "acc_" + "0" * 32, "ep_" + "0" * 32])
def test_invalid_ids_are_not_found(server: Any, account: str) -> None:
    """A malformed ID and an unknown one have the same response."""
    for path in (f"/v1/accounts/{account}", f"/v1/accounts/{account}/keys"):
        assert server.operator.get(path).code == "not_found"
    assert server.client(server.operator_key, account).get("/v1/endpoints").code == "not_found"


def test_a_restart_restores_the_stored_state(server: Any) -> None:
    """A new cache of the same database has the same keys, accounts, event types and endpoints."""
    from uplift_server.store.encryption import Cipher

    account = server.account()
    server.owner(account).post("/v1/endpoints", {"url": "https://example.com/a"})
    server.operator.put("/v1/event-types/short.lived", {"description": "x"})
    server.operator.delete("/v1/event-types/short.lived")
    first = server.services.context.cache
    again = endpoint_cache(Cipher(bytes(32)))

    async def start(configured: str | None) -> str | None:
        return await prepare(replace(server.services.context, cache=again), PROCESS_KEY, configured)

    assert server.run(lambda: start(None)) is None
    assert again.keys == first.keys
    assert again.accounts == first.accounts
    assert {name: live.record for name, live in again.event_types.items()} == {
        name: live.record for name, live in first.event_types.items()
    }
    assert again.event_types_by_seq.keys() == first.event_types_by_seq.keys()
    assert again.endpoints.keys() == first.endpoints.keys()
    configured = "op_" + "c" * 40
    assert server.run(lambda: start(configured)) is None
    operators = [digest for digest, key in again.keys.items() if key.account_seq is None]
    assert operators == [hashlib.sha256(configured.encode()).digest()], "the generated key is no longer valid"


def test_requests_run_on_the_thread_of_the_event_loop(server: Any) -> None:
    """Only this thread may use the cache."""
    assert server.operator.get("/v1/accounts").status == 200
    assert server.operator.post("/v1/accounts", {"name": "Riverside"}).status == 201

    assert not [thread.name for thread in threading.enumerate() if "AnyIO" in thread.name]
