"""Service keys: the calls that they can make, and their management by operators."""

import hashlib
from typing import Any

import pytest

from uplift_server.core.security.scopes import SERVICE_SCOPES, AccountsScope
from uplift_server.service.errors import Unauthorized

from .test_isolation import ANY_KEY, INGEST, PUBLIC, SCOPED, TWO_SCOPES, Owned

ACCOUNTS = {
    ("GET", "/v1/accounts"): AccountsScope.ACCOUNTS_READ,
    ("GET", "/v1/accounts/{account}"): AccountsScope.ACCOUNTS_READ,
    ("GET", "/v1/account"): AccountsScope.ACCOUNTS_READ,
    ("POST", "/v1/accounts"): AccountsScope.ACCOUNTS_WRITE,
    ("PUT", "/v1/accounts/{account}"): AccountsScope.ACCOUNTS_WRITE,
    ("PATCH", "/v1/accounts/{account}"): AccountsScope.ACCOUNTS_WRITE,
    ("DELETE", "/v1/accounts/{account}"): AccountsScope.ACCOUNTS_WRITE,
}
"""The scope that a service key needs for each of these calls. Only operators and service keys can make most of them."""
FORBIDDEN = {
    ("GET", "/metrics"),
    ("POST", "/v1/accounts/{account}/keys"),
    ("GET", "/v1/accounts/{account}/keys"),
    ("PATCH", "/v1/accounts/{account}/keys/{key}"),
    ("DELETE", "/v1/accounts/{account}/keys/{key}"),
    ("POST", "/v1/keys"),
    ("GET", "/v1/keys"),
    ("PATCH", "/v1/keys/{key}"),
    ("DELETE", "/v1/keys/{key}"),
    ("GET", "/v1/accounts/{account}/members"),
    ("POST", "/v1/accounts/{account}/members"),
    ("PATCH", "/v1/accounts/{account}/members/{member}"),
    ("DELETE", "/v1/accounts/{account}/members/{member}"),
    ("POST", "/v1/accounts/{account}/members/{member}/password-reset"),
    ("DELETE", "/v1/accounts/{account}/members/{member}/second-factor"),
    ("GET", "/v1/accounts/{account}/invitations"),
    ("DELETE", "/v1/accounts/{account}/invitations/{invitation}"),
    ("POST", "/v1/accounts/{account}/portal-links"),
    ("GET", "/v1/accounts/{account}/portal-links"),
    ("DELETE", "/v1/accounts/{account}/portal-links/{link}"),
    ("POST", "/v1/accounts/{account}/erasures"),
    ("GET", "/v1/accounts/{account}/erasures"),
    ("GET", "/v1/accounts/{account}/erasures/{erasure}"),
    ("POST", "/v1/sign-in-links"),
    ("POST", "/v1/retention/resume"),
    ("GET", "/v1/fleet"),
    ("POST", "/v1/endpoints/{endpoint}/disable"),
    ("PUT", "/v1/event-types/{name}"),
    ("PATCH", "/v1/event-types/{name}"),
    ("DELETE", "/v1/event-types/{name}"),
}
NEED_AN_ACCOUNT = {
    ("POST", "/v1/endpoints"),
    ("POST", "/v1/listen-sessions"),
    ("POST", "/v1/deliveries/resend"),
    ("GET", "/v1/audit-log"),
    ("GET", "/v1/account"),
}
"""The calls that fail with `account_required` if a request has no `Uplift-Account` header."""
ALLOWED = {**SCOPED, **ACCOUNTS}


def key(server: Any, scopes: Any, **fields: Any) -> Any:
    """Create a service key."""
    created = server.operator.post("/v1/keys", {"name": "capture", "scopes": list(scopes), **fields})
    assert created.status == 201, created.body
    return created.json


def client(server: Any, scopes: Any, account: str | None = None) -> Any:
    """Return a client with a new service key."""
    return server.client(key(server, scopes)["key"], account)


def without(scope: str) -> list[str]:
    """Return all scopes but one."""
    return [each for each in SERVICE_SCOPES if each != scope]


def test_every_route_is_decided(server: Any) -> None:
    """A new route must be added to one of the tables of routes, here or in `test_isolation.py`."""
    document = server.client(None).get("/openapi.json").json
    routes = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert routes == set(ALLOWED) | set(TWO_SCOPES) | ANY_KEY | FORBIDDEN | PUBLIC | INGEST
    assert not set(ALLOWED) & FORBIDDEN


@pytest.mark.parametrize("names_account", [True, False], ids=["account", "all accounts"])
def test_calls_of_operators_are_forbidden_with_all_scopes(server: Any, names_account: bool) -> None:
    """The detail of the error names the key that the call requires. The calls change nothing."""
    owned = Owned(server)
    service = client(server, SERVICE_SCOPES, owned.id if names_account else None)
    before = {path: server.operator.get(path).json for path in (f"/v1/accounts/{owned.id}/keys", "/v1/keys")}
    for method, path in FORBIDDEN:
        response = owned.call(service, method, path)
        assert (response.status, response.code) == (403, "forbidden"), (method, path, response.body)
        assert "requires an operator key (op_…)" in response.json["detail"], (method, path)
    assert {path: server.operator.get(path).json for path in before} == before


@pytest.mark.parametrize("names_account", [True, False], ids=["account", "all accounts"])
@pytest.mark.parametrize("scope", SERVICE_SCOPES)
def test_each_scope_allows_its_calls_only(server: Any, scope: str, names_account: bool) -> None:
    """Covers a key with only this scope, and a key with all other scopes."""
    owned = Owned(server)
    account = owned.id if names_account else None
    only, others = client(server, [scope], account), client(server, without(scope), account)
    # Deletions must be last, and the deletion of the account after all others.
    for method, path in sorted(ALLOWED, key=lambda route: (route[0] == "DELETE", route[1] == "/v1/accounts/{account}")):
        if ALLOWED[method, path] != scope:
            assert owned.call(only, method, path).code == "forbidden", (method, path)
            continue
        forbidden = owned.call(others, method, path)
        assert forbidden.code == "forbidden", (method, path)
        assert forbidden.json["detail"].endswith(f"the scope {scope}. Ask the operator for a key with this scope.")
        response = owned.call(only, method, path)
        if not names_account and (method, path) in NEED_AN_ACCOUNT:
            assert response.code == "account_required", (method, path)
        else:
            # Another key created the session, and no client is connected to it.
            expected = {409} if path.endswith("/{session}/test") else {200, 201, 202, 204}
            assert response.status in expected, (method, path, response.body)
    if scope != AccountsScope.ACCOUNTS_WRITE:
        for method, path in ANY_KEY:
            assert owned.call(only, method, path).status == 200


def test_calls_with_two_scopes_need_both_and_an_account(server: Any) -> None:
    owned = Owned(server)
    for (method, path), needed in TWO_SCOPES.items():
        assert owned.call(client(server, needed, owned.id), method, path).status == 200
        assert owned.call(client(server, needed), method, path).code == "account_required"
        for scope in needed:
            assert owned.call(client(server, without(scope), owned.id), method, path).code == "forbidden"


def test_lists_span_all_accounts_unless_the_key_names_one(server: Any) -> None:
    """An unknown account is not found."""
    mine, theirs = Owned(server), Owned(server)
    text = key(server, SERVICE_SCOPES)["key"]
    for path in ("/v1/endpoints", "/v1/events", "/v1/deliveries", "/v1/replays", "/v1/listen-sessions"):
        everywhere = server.client(text).get(f"{path}?limit=500").json["data"]
        assert {mine.id, theirs.id} <= {each["account"] for each in everywhere}, path
        assert [each["id"] for each in server.client(text, mine.id).get(path).json["data"]] == [
            each["id"] for each in everywhere if each["account"] == mine.id
        ]
    totals = server.client(text).get("/v1/stats").json
    assert totals == server.operator.get("/v1/stats").json
    assert server.client(text, f"acc_{'0' * 32}").get("/v1/endpoints").code == "not_found"


def test_the_audit_log_shows_the_key_but_not_the_address(server: Any) -> None:
    """Accounts see the key's name, but only operators see its IP address. A service key sees no operator's address."""
    owned = Owned(server)
    made = key(server, ["endpoints:write", "endpoints:read"])
    service = server.client(made["key"], owned.id)
    endpoint = service.post("/v1/endpoints", {"url": "https://example.com/service"}).json["id"]
    path = f"/v1/audit-log?action=endpoint.created&subject={endpoint}"
    [seen] = owned.client.get(path).json["data"]
    assert seen["actor"]["name"] == "service key capture"
    assert seen["actor"]["id"] == made["id"]
    assert seen["address"] is None
    [seen_by_operator] = server.operator.get(path).json["data"]
    assert seen_by_operator["address"] == "127.0.0.1"
    for entry in service.get("/v1/audit-log?actor=operator").json["data"]:
        assert entry["address"] is None


def test_operators_manage_service_keys(server: Any) -> None:
    """The key is shown once, a rename applies immediately, and a revoked key stops working."""
    made = key(server, ["accounts:read"])
    assert made["key"].startswith("svc_")
    assert made["key"].endswith(made["ends_with"])
    assert (made["scopes"], made["expires_at"]) == (["accounts:read"], None)
    shown = {name: value for name, value in made.items() if name != "key"}
    assert shown in server.operator.get("/v1/keys").json["data"]
    cache = server.services.context.cache
    digest = hashlib.sha256(made["key"].encode()).digest()
    assert digest in cache.service_keys
    assert digest not in cache.keys

    path = f"/v1/keys/{made['id']}"
    renamed = server.operator.patch(path, {"name": "provisioning"})
    assert (renamed.status, renamed.json) == (200, {**shown, "name": "provisioning"})
    assert server.operator.patch(path, {}).json == renamed.json
    service = server.client(made["key"])
    assert service.get("/v1/accounts").status == 200
    assert server.operator.delete(path).status == 204
    assert (service.get("/v1/accounts").status, service.get("/v1/accounts").code) == (401, "unauthorized")
    for response in (server.operator.delete(path), server.operator.patch(path, {"name": "x"})):
        assert response.code == "not_found"
    entries = server.operator.get(f"/v1/audit-log?subject={made['id']}").json["data"]
    assert [(each["action"], each["details"]) for each in entries] == [
        ("key.revoked", {"kind": "service key", "name": "provisioning"}),
        (
            "key.changed",
            {"kind": "service key", "changed": ["name"], "from": {"name": "capture"}, "to": {"name": "provisioning"}},
        ),
        ("key.created", {"kind": "service key", "name": "capture", "scopes": ["accounts:read"]}),
    ]


def test_a_repeated_request_creates_one_key(server: Any) -> None:
    """The response to the repeated request omits the key."""
    body = {"name": "once", "scopes": ["events:write"]}
    first, again = [server.operator.post("/v1/keys", body, Idempotency_Key="one service key") for _ in range(2)]
    assert (first.status, again.status) == (201, 201)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json == {name: value for name, value in first.json.items() if name != "key"}


def test_all_problems_of_a_service_key_are_reported_together(server: Any) -> None:
    """The scopes are required. An account's key cannot have the scopes of service keys."""
    invalid = server.operator.post(
        "/v1/keys", {"name": "", "scopes": ["everything"], "expires_at": "2020-01-01T00:00:00Z", "x": 1}
    )
    assert invalid.problems == {
        ("name", "name_invalid"),
        ("scopes", "scope_unknown"),
        ("expires_at", "expires_at_past"),
        ("x", "unknown_field"),
    }
    assert server.operator.post("/v1/keys", {}).problems == {("name", "required"), ("scopes", "required")}
    account = server.account()
    refused = server.operator.post(f"/v1/accounts/{account}/keys", {"name": "x", "scopes": ["accounts:read"]})
    assert refused.problems == {("scopes", "scope_unknown")}


def test_account_keys_learn_which_key_a_call_requires(server: Any) -> None:
    owner = server.owner(server.account())
    assert "or a service key (svc_…) with accounts:read" in owner.get("/v1/accounts").json["detail"]


def test_service_keys_cannot_sign_in_to_the_dashboard(server: Any) -> None:
    text = key(server, SERVICE_SCOPES)["key"]
    with pytest.raises(Unauthorized):
        server.run(lambda: server.services.sessions.sign_in_operator(text, address=None))
