"""Accounts are isolated from each other, and keys have only the permissions of their scopes."""

from collections.abc import Iterator
from typing import Any

import pytest

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.security.scopes import Scope

READ, WRITE = "read", "write"
# The routes that an account key can call, with their scopes.
SCOPED = {
    ("GET", "/v1/endpoints"): Scope.ENDPOINTS_READ,
    ("POST", "/v1/endpoints"): Scope.ENDPOINTS_WRITE,
    ("GET", "/v1/endpoints/{endpoint}"): Scope.ENDPOINTS_READ,
    ("PUT", "/v1/endpoints/{endpoint}"): Scope.ENDPOINTS_WRITE,
    ("PATCH", "/v1/endpoints/{endpoint}"): Scope.ENDPOINTS_WRITE,
    ("DELETE", "/v1/endpoints/{endpoint}"): Scope.ENDPOINTS_WRITE,
    ("GET", "/v1/endpoints/{endpoint}/deliveries"): Scope.DELIVERIES_READ,
    ("GET", "/v1/endpoints/{endpoint}/stats"): Scope.DELIVERIES_READ,
    ("GET", "/v1/stats"): Scope.DELIVERIES_READ,
    ("POST", "/v1/endpoints/{endpoint}/pause"): Scope.ENDPOINTS_WRITE,
    ("POST", "/v1/endpoints/{endpoint}/enable"): Scope.ENDPOINTS_WRITE,
    ("POST", "/v1/endpoints/{endpoint}/test"): Scope.ENDPOINTS_WRITE,
    ("POST", "/v1/endpoints/{endpoint}/verify"): Scope.ENDPOINTS_WRITE,
    ("GET", "/v1/endpoints/{endpoint}/secret"): Scope.SECRETS_READ,
    ("POST", "/v1/endpoints/{endpoint}/secret/rotate"): Scope.SECRETS_WRITE,
    ("POST", "/v1/endpoints/{endpoint}/secret/expire-old"): Scope.SECRETS_WRITE,
    ("GET", "/v1/events"): Scope.EVENTS_READ,
    ("GET", "/v1/events/{event}"): Scope.EVENTS_READ,
    ("GET", "/v1/rejected-events"): Scope.EVENTS_READ,
    ("GET", "/v1/rejected-events/{rejected_event}"): Scope.EVENTS_READ,
    ("GET", "/v1/events/{event}/deliveries"): Scope.DELIVERIES_READ,
    ("GET", "/v1/events/{event}/explain"): Scope.DELIVERIES_READ,
    ("GET", "/v1/deliveries"): Scope.DELIVERIES_READ,
    ("GET", "/v1/deliveries/{delivery}"): Scope.DELIVERIES_READ,
    ("GET", "/v1/deliveries/{delivery}/attempts"): Scope.DELIVERIES_READ,
    ("GET", "/v1/attempts"): Scope.DELIVERIES_READ,
    ("GET", "/v1/attempts/{attempt}"): Scope.DELIVERIES_READ,
    ("POST", "/v1/deliveries/{delivery}/resend"): Scope.DELIVERIES_WRITE,
    ("POST", "/v1/deliveries/{delivery}/cancel"): Scope.DELIVERIES_WRITE,
    ("POST", "/v1/deliveries/resend"): Scope.DELIVERIES_WRITE,
    ("GET", "/v1/replays"): Scope.DELIVERIES_READ,
    ("POST", "/v1/replays"): Scope.DELIVERIES_WRITE,
    ("GET", "/v1/replays/{replay}"): Scope.DELIVERIES_READ,
    ("POST", "/v1/replays/{replay}/pause"): Scope.DELIVERIES_WRITE,
    ("POST", "/v1/replays/{replay}/resume"): Scope.DELIVERIES_WRITE,
    ("POST", "/v1/replays/{replay}/cancel"): Scope.DELIVERIES_WRITE,
    ("GET", "/v1/audit-log"): Scope.ENDPOINTS_READ,
    ("POST", "/v1/listen-sessions"): Scope.LISTEN,
    ("GET", "/v1/listen-sessions"): Scope.LISTEN,
    ("GET", "/v1/listen-sessions/{session}"): Scope.LISTEN,
    ("DELETE", "/v1/listen-sessions/{session}"): Scope.LISTEN,
    ("GET", "/v1/listen-sessions/{session}/answers"): Scope.LISTEN,
    ("POST", "/v1/listen-sessions/{session}/test"): Scope.LISTEN,
}
TWO_SCOPES = {("POST", "/v1/endpoints/filter-preview"): {Scope.ENDPOINTS_READ, Scope.EVENTS_READ}}
"""The scopes of each call that needs two scopes."""
ANY_KEY = {("GET", "/v1/event-types"), ("GET", "/v1/event-types/{name}")}
OWN_ACCOUNT = ("GET", "/v1/account")
"""The call that every key of an account can make, regardless of its scopes."""
OPERATORS = {
    ("GET", "/metrics"),
    ("POST", "/v1/accounts"),
    ("GET", "/v1/accounts"),
    ("GET", "/v1/accounts/{account}"),
    ("PUT", "/v1/accounts/{account}"),
    ("PATCH", "/v1/accounts/{account}"),
    ("DELETE", "/v1/accounts/{account}"),
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
    ("POST", "/v1/accounts/{account}/erasures"),
    ("GET", "/v1/accounts/{account}/erasures"),
    ("GET", "/v1/accounts/{account}/erasures/{erasure}"),
    ("POST", "/v1/accounts/{account}/portal-links"),
    ("GET", "/v1/accounts/{account}/portal-links"),
    ("DELETE", "/v1/accounts/{account}/portal-links/{link}"),
    ("POST", "/v1/sign-in-links"),
    ("POST", "/v1/retention/resume"),
    ("GET", "/v1/fleet"),
    ("POST", "/v1/endpoints/{endpoint}/disable"),
    ("PUT", "/v1/event-types/{name}"),
    ("PATCH", "/v1/event-types/{name}"),
    ("DELETE", "/v1/event-types/{name}"),
}
PUBLIC = {("GET", path) for path in ("/v1/source-ips", "/healthz", "/readyz", "/docs", "/docs/{document}")}
INGEST = {("POST", "/v1/events"), ("POST", "/v1/events/batch")}
"""The calls that `IngestRoutes` serves. `test_ingest.py` tests their permissions."""

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/endpoints"): {"url": "https://example.com/x"},
    ("PUT", "/v1/endpoints/{endpoint}"): {"url": "https://example.com/taken"},
    ("PATCH", "/v1/endpoints/{endpoint}"): {"description": "taken over"},
    ("POST", "/v1/endpoints/filter-preview"): {"filter": None},
    ("POST", "/v1/accounts"): {"name": "x"},
    ("PUT", "/v1/accounts/{account}"): {"name": "taken over"},
    ("PATCH", "/v1/accounts/{account}"): {"name": "taken over"},
    ("POST", "/v1/accounts/{account}/keys"): {"name": "x"},
    ("PATCH", "/v1/accounts/{account}/keys/{key}"): {"name": "taken over"},
    ("POST", "/v1/keys"): {"name": "x", "scopes": []},
    ("PATCH", "/v1/keys/{key}"): {"name": "taken over"},
    ("POST", "/v1/accounts/{account}/members"): {"email": "me@example.com", "role": "owner"},
    ("PATCH", "/v1/accounts/{account}/members/{member}"): {"role": "owner"},
    ("PUT", "/v1/event-types/{name}"): {"description": "taken over"},
    ("PATCH", "/v1/event-types/{name}"): {"description": "taken over"},
    ("POST", "/v1/accounts/{account}/erasures"): {"object_id": "x"},
    ("POST", "/v1/deliveries/resend"): {"dry_run": True},
    ("POST", "/v1/replays"): {"endpoint": "{endpoint}", "dry_run": True},
}


class Owned:
    """An account with one object of each kind."""

    def __init__(self, server: Any) -> None:
        self.id = server.account()
        self.client = server.owner(self.id, list(Scope))
        endpoint = self.client.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"]
        event = server.event(self.id, {endpoint: Status.PENDING})
        for leased in server.lease(endpoint):
            server.settle(leased, Outcome.SERVER_ERROR, Status.FAILED)
        delivery = self.client.get(f"/v1/events/{event}/deliveries").json["data"][0]["id"]
        held = server.event(self.id, {endpoint: Status.HELD})
        key = server.operator.get(f"/v1/accounts/{self.id}/keys").json["data"][0]["id"]
        self.names = {
            "account": self.id,
            "endpoint": endpoint,
            "event": event,
            "delivery": delivery,
            "attempt": self.client.get(f"/v1/deliveries/{delivery}/attempts").json["data"][0]["id"],
            "held": self.client.get(f"/v1/events/{held}/deliveries").json["data"][0]["id"],
            "key": key,
            "link": server.operator.post(f"/v1/accounts/{self.id}/portal-links").json["id"],
            "rejected_event": server.reject(self.id),
            "replay": self.client.post("/v1/replays", {"endpoint": endpoint}).json["id"],
            "erasure": server.operator.post(f"/v1/accounts/{self.id}/erasures", {"object_id": "athlete-1"}).json["id"],
            "session": self.client.post("/v1/listen-sessions").json["id"],
            "member": self._member(server),
            "invitation": self._invitation(server),
            "name": "movement.analytics.created",
        }

    def _member(self, server: Any) -> str:
        """Open a portal link, and return the ID of the new member."""
        created = server.operator.post(f"/v1/accounts/{self.id}/portal-links", {"email": f"{self.id}@example.com"})
        token = created.json["url"].rpartition("/")[2]
        server.run(lambda: server.services.sessions.open_link(token, address=None))
        return str(server.operator.get(f"/v1/accounts/{self.id}/members").json["data"][0]["id"])

    def _invitation(self, server: Any) -> str:
        body = {"email": "invited@example.com", "role": "member"}
        return str(server.operator.post(f"/v1/accounts/{self.id}/members", body).json["id"])

    def call(self, client: Any, method: str, path: str) -> Any:
        """Call a route with the IDs of this account."""
        body = BODIES.get((method, path))
        if path == "/v1/replays" and body is not None:
            body = {**body, "endpoint": self.names["endpoint"]}
        names = self.names
        if path == "/v1/deliveries/{delivery}/cancel":
            names = {**names, "delivery": names["held"]}
        return client.call(method, path.format(**names), body)


@pytest.fixture(scope="module")
def mine(server: Any) -> Owned:
    """One account."""
    return Owned(server)


@pytest.fixture(scope="module")
def theirs(server: Any) -> Owned:
    """Another account."""
    return Owned(server)


def test_the_tables_contain_all_routes(server: Any) -> None:
    """A new route must be added to one of the tables of routes in this module."""
    document = server.client(None).get("/openapi.json").json
    routes = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert routes == set(SCOPED) | set(TWO_SCOPES) | ANY_KEY | {OWN_ACCOUNT} | OPERATORS | PUBLIC | INGEST


def test_objects_of_other_accounts_are_not_found(mine: Owned, theirs: Owned, server: Any) -> None:
    """Covers each route with IDs of another account, for a key and for an operator who selects the wrong account."""
    acting = server.client(server.operator_key, mine.id)
    object_routes = [route for route in SCOPED if "{" in route[1]]
    assert len(object_routes) == 30
    for method, path in object_routes:
        for client in (mine.client, acting):
            response = theirs.call(client, method, path)
            assert (response.status, response.code) == (404, "not_found"), (method, path)
            assert theirs.id not in response.body.decode()
    assert server.client(mine.client.key, theirs.id).get("/v1/endpoints").code == "not_found"
    filtered = mine.client.get(f"/v1/deliveries?endpoint={theirs.names['endpoint']}")
    assert filtered.problems == {("endpoint", "endpoint_unknown")}
    replayed = theirs.call(mine.client, "POST", "/v1/replays")
    assert replayed.problems == {("endpoint", "endpoint_unknown")}
    # The requests have not changed or deleted the endpoint.
    assert theirs.client.get(f"/v1/endpoints/{theirs.names['endpoint']}").json["description"] == ""


def strings(value: Any) -> Iterator[str]:
    """Yield all strings in a JSON value."""
    if isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)
    elif isinstance(value, str):
        yield value


def test_lists_contain_no_objects_of_other_accounts(mine: Owned, theirs: Owned) -> None:
    """Covers each list that an account key can read."""
    foreign = {value for name, value in theirs.names.items() if name != "name"}
    for method, path in SCOPED:
        # test_statistics.py covers the isolation of statistics.
        if method == "GET" and "{" not in path and path != "/v1/stats":
            response = mine.call(mine.client, method, path).json
            assert response["data"], path
            assert not foreign & set(strings(response)), path


def test_all_routes_require_a_key(mine: Owned, server: Any) -> None:
    """A missing header, another scheme, an empty key and an unknown key have the same response."""
    wrong = ["Basic b3A6", "Bearer ", "Bearer sk_x", f"Bearer {mine.client.key}x", "Bearer " + "x" * 5000]
    for headers in ({}, *({"authorization": each} for each in wrong)):
        for method, path in {*SCOPED, *TWO_SCOPES, *ANY_KEY, OWN_ACCOUNT, *OPERATORS}:
            client = server.client(None)
            response = client.call(method, path.format(**mine.names), BODIES.get((method, path)), **headers)
            assert (response.status, response.code) == (401, "unauthorized"), (method, path)
            assert response.headers["www-authenticate"].startswith("Bearer")
    lower = server.client(None).get("/v1/endpoints", authorization=f"bearer   {mine.client.key}")
    assert lower.status == 200


def test_public_routes_require_no_key(server: Any) -> None:
    """The response does not depend on whether a request has a key, or whether the key is valid."""
    for _, path in PUBLIC | {("GET", "/openapi.json")}:
        named = path.format(document="errors")
        assert server.client(None).get(named).status == 200
        assert server.client("sk_wrong").get(named).status == 200


def test_account_keys_cannot_make_calls_of_operators(mine: Owned) -> None:
    """The key has all scopes, and the calls concern its own account."""
    for method, path in OPERATORS:
        response = mine.call(mine.client, method, path)
        assert (response.status, response.code) == (403, "forbidden"), (method, path)


@pytest.mark.parametrize("scope", list(Scope))
def test_each_scope_allows_its_routes_only(server: Any, scope: Scope) -> None:
    """Covers a key with only this scope, and a key with all other scopes."""
    owned = Owned(server)
    only, without = server.owner(owned.id, [scope]), server.owner(owned.id, [each for each in Scope if each != scope])
    # Deletions must be last.
    for (method, path), needed in sorted(SCOPED.items(), key=lambda item: item[0][0] == "DELETE"):
        if needed is not scope:
            assert owned.call(only, method, path).code == "forbidden", (method, path)
            continue
        assert owned.call(without, method, path).code == "forbidden", (method, path)
        response = owned.call(only, method, path)
        # No client is connected to the session.
        expected = {409} if path.endswith("/{session}/test") else {200, 201, 202, 204}
        assert response.status in expected, (method, path, response.body)
    for method, path in ANY_KEY:
        assert owned.call(only, method, path).status == 200
    assert owned.call(only, *OWN_ACCOUNT).json["id"] == owned.id


def test_calls_with_two_scopes_need_both(mine: Owned, server: Any) -> None:
    for (method, path), needed in TWO_SCOPES.items():
        assert mine.call(server.owner(mine.id, list(needed)), method, path).status == 200
        for scope in needed:
            without = server.owner(mine.id, [each for each in Scope if each != scope])
            response = mine.call(without, method, path)
            assert response.code == "forbidden", (method, path)
            assert scope in response.json["detail"]


def test_permissions_are_checked_before_the_body(mine: Owned, server: Any) -> None:
    """A caller without permission does not see the problems of the body."""
    reader = server.owner(mine.id, [Scope.ENDPOINTS_READ])
    assert reader.post("/v1/endpoints", {"bad": 1}).code == "forbidden"
    assert server.client(None).call("POST", "/v1/endpoints", raw=b"{").code == "unauthorized"
    assert reader.get("/v1/deliveries?limit=0").code == "forbidden"
