"""The operator's own IDs (`uid`) and metadata of accounts and endpoints."""

import re
from typing import Any

import pytest

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status

URL = "https://example.com/uplift"
MISSING = {"key": "key_" + "0" * 32, "member": "mem_" + "0" * 32, "invitation": "inv_" + "0" * 32,
           "link": "lnk_" + "0" * 32, "erasure": "ers_" + "0" * 32}  # fmt: skip
_number = iter(range(1_000_000))


def unique(prefix: str) -> str:
    """Return a new uid."""
    return f"{prefix}-{next(_number)}"


@pytest.fixture
def owned(server: Any) -> Any:
    """An account with a uid, an endpoint with the uid `main`, and clients for the account."""
    return Owned(server, unique("club"))


class Owned:
    """An account and an endpoint with uids."""

    def __init__(self, server: Any, uid: str, endpoint_uid: str = "main") -> None:
        self.uid = uid
        self.id: str = server.operator.post("/v1/accounts", {"name": "Club", "uid": uid}).json["id"]
        self.key: str = server.operator.post(f"/v1/accounts/{uid}/keys", {"name": "test"}).json["key"]
        self.owner = server.client(self.key)
        self.endpoint: str = self.owner.post("/v1/endpoints", {"url": URL, "uid": endpoint_uid}).json["id"]
        self.operator = server.client(server.operator_key, uid)


def test_every_path_accepts_uids(server: Any) -> None:
    """A call with the uid has the same status as one with the ID. A call with an unknown uid returns 404."""
    document = server.client(None).get("/openapi.json").json
    calls = [
        (verb.upper(), path)
        for path, operations in document["paths"].items()
        for verb in operations
        if re.search("{(account|endpoint)}", path) and verb != "put"
    ]
    assert len(calls) > 20
    for verb, path in calls:
        by_id, by_uid = Owned(server, unique("by-id")), Owned(server, unique("by-uid"))
        # Even with an invalid body, the services look for the object first.
        body = None if verb in {"GET", "DELETE"} else {"no_such_field": 1}
        names = ((by_id, by_id.id, by_id.endpoint), (by_uid, by_uid.uid, "main"), (by_uid, "unknown", "unknown"))
        statuses = []
        for account, account_name, endpoint_name in names:
            client = server.operator if "{account}" in path else account.operator
            target = path.format(account=account_name, endpoint=endpoint_name, **MISSING)
            statuses.append(client.call(verb, target, body).status)
        assert statuses[0] == statuses[1], (verb, path, statuses)
        assert statuses[0] != 404 or re.search("{(key|member|invitation|link|erasure)}", path), (verb, path)
        assert statuses[2] == 404, (verb, path, statuses)


def test_responses_have_the_id_of_the_account(server: Any, owned: Owned) -> None:
    path = f"/v1/accounts/{owned.uid}"
    assert server.operator.get(path).json["id"] == owned.id
    assert server.operator.post(f"{path}/keys", {"name": "a"}).json["account"] == owned.id
    assert {each["account"] for each in server.operator.get(f"{path}/keys").json["data"]} == {owned.id}


def test_the_account_header_accepts_the_uid(server: Any, owned: Owned) -> None:
    assert owned.operator.get("/v1/endpoints").json == owned.owner.get("/v1/endpoints").json
    assert server.client(server.operator_key, "unknown-uid").get("/v1/endpoints").code == "not_found"


def test_filters_and_bodies_accept_the_uid_of_an_endpoint(server: Any, owned: Owned) -> None:
    event = server.event(owned.id, {owned.endpoint: Status.PENDING})
    [registration, leased] = server.lease(owned.endpoint)
    for each in (registration, leased):
        server.settle(each, Outcome.SERVER_ERROR, Status.FAILED)
    found = owned.owner.get("/v1/deliveries?endpoint=main&status=failed").json["data"]
    assert {each["endpoint"] for each in found} == {owned.endpoint}
    assert [each["endpoint"] for each in owned.owner.get(f"/v1/events/{event}/explain?endpoint=main").json["data"]] == [
        owned.endpoint
    ]
    assert owned.owner.post("/v1/deliveries/resend", {"endpoint": ["main"], "dry_run": True}).json["count"] == 2
    assert owned.owner.post("/v1/replays", {"endpoint": "main"}).json["endpoint"] == owned.endpoint
    for response in (
        owned.owner.get("/v1/deliveries?endpoint=other"),
        owned.owner.get(f"/v1/events/{event}/explain?endpoint=other"),
        owned.owner.post("/v1/replays", {"endpoint": "other"}),
    ):
        assert response.problems == {("endpoint", "endpoint_unknown")}


def test_the_audit_log_of_an_object_is_found_by_its_uid(server: Any, owned: Owned) -> None:
    found = owned.owner.get("/v1/audit-log?subject=main").json["data"]
    assert [(each["action"], each["subject"]) for each in found] == [("endpoint.created", owned.endpoint)]
    of_account = server.operator.get(f"/v1/audit-log?subject={owned.uid}").json["data"]
    assert [each["subject"] for each in of_account] == [owned.id]
    assert owned.owner.get("/v1/audit-log?subject=other").json["data"] == []


def test_the_uid_of_an_endpoint_is_unique_only_in_its_account(server: Any, owned: Owned) -> None:
    """Calls never reach the endpoint of another account."""
    other = Owned(server, unique("club"))
    assert owned.owner.get("/v1/endpoints/main").json["id"] == owned.endpoint
    assert other.owner.get("/v1/endpoints/main").json["id"] == other.endpoint
    third = server.owner(server.account())
    assert third.get("/v1/endpoints/main").code == "not_found"
    assert third.patch("/v1/endpoints/main", {"description": "x"}).code == "not_found"
    assert third.delete("/v1/endpoints/main").code == "not_found"
    ambiguous = server.operator.get("/v1/endpoints/main")
    assert (ambiguous.status, ambiguous.code) == (422, "account_required")
    assert server.operator.get("/v1/deliveries?endpoint=main").code == "account_required"
    assert server.client(owned.key, other.uid).get("/v1/endpoints").code == "not_found"


@pytest.mark.parametrize("kind", ["accounts", "endpoints"])
def test_a_uid_is_unique_until_its_object_is_deleted(server: Any, owned: Owned, kind: str) -> None:
    client, new = (server.operator, {"name": "Club"}) if kind == "accounts" else (owned.owner, {"url": URL})
    path, uid = f"/v1/{kind}", unique("shared")
    one, two = (client.post(path, {**new, **own}).json["id"] for own in ({"uid": uid}, {}))
    for response in (client.post(path, {**new, "uid": uid}), client.patch(f"{path}/{two}", {"uid": uid})):
        assert (response.status, response.code) == (409, "conflict")
    assert client.patch(f"{path}/{one}", {"uid": uid}).status == 200
    assert client.patch(f"{path}/{one}", {"uid": None}).json["uid"] is None
    assert client.get(f"{path}/{uid}").code == "not_found"
    assert client.patch(f"{path}/{two}", {"uid": uid}).json["uid"] == uid
    assert client.delete(f"{path}/{uid}").status == 204
    assert client.get(f"{path}/{uid}").code == "not_found"
    assert client.patch(f"{path}/{one}", {"uid": uid}).json["id"] == one
    assert client.get(f"{path}/{uid}").json["id"] == one


@pytest.mark.parametrize(
    ("uid", "code"),
    [
        ("", "uid_invalid"),
        ("a" * 129, "uid_invalid"),
        ("a/b", "uid_invalid"),
        ("ä", "uid_invalid"),
        ("a\n", "uid_invalid"),
        ("..", "uid_invalid"),
        ("acc_1", "uid_reserved"),
        ("ep_1", "uid_reserved"),
    ],
)
def test_invalid_uids_are_rejected(server: Any, owned: Owned, uid: str, code: str) -> None:
    for client, path, new in (
        (server.operator, "/v1/accounts", {"name": "Club"}),
        (owned.owner, "/v1/endpoints", {"url": URL}),
    ):
        assert client.post(path, {**new, "uid": uid}).problems == {("uid", code)}
    assert server.operator.patch(f"/v1/accounts/{owned.id}", {"uid": uid}).problems == {("uid", code)}
    assert owned.owner.patch("/v1/endpoints/main", {"uid": uid}).problems == {("uid", code)}


def test_a_uid_has_up_to_128_characters(server: Any) -> None:
    uid = unique("A.b_c-").ljust(128, "9")
    assert Owned(server, uid, uid).owner.get(f"/v1/endpoints/{uid}").json["uid"] == uid


@pytest.mark.parametrize("kind", ["accounts", "endpoints"])
def test_updates_merge_metadata_within_its_limits(server: Any, owned: Owned, kind: str) -> None:
    """Null removes a value. An update that exceeds a limit changes nothing."""
    client, path, new = (
        (server.operator, "/v1/accounts", {"name": "Club"})
        if kind == "accounts"
        else (owned.owner, "/v1/endpoints", {"url": URL})
    )
    created = client.post(path, {**new, "metadata": {"plan": "club", "größe": "1"}}).json
    assert created["metadata"] == {"plan": "club", "größe": "1"}
    path = f"{path}/{created['id']}"
    assert client.patch(path, {"metadata": {"plan": None, "season": "2026"}}).json["metadata"] == {
        "größe": "1",
        "season": "2026",
    }
    many = {f"n{number}": "" for number in range(49)}
    for change, code in (
        (many, "too_many"),
        ({"season": "ä" * 2041}, "too_long"),
        ({"season": "\0"}, "characters_invalid"),
    ):
        assert client.patch(path, {"metadata": change}).problems == {("metadata", code)}
    assert client.patch(path, {"metadata": {"season": 1}}).problems == {("metadata.season", "type_text")}
    assert client.get(path).json["metadata"] == {"größe": "1", "season": "2026"}
    assert client.patch(path, {"metadata": {**many, "season": None}}).status == 200
    assert client.patch(path, {"metadata": None}).json["metadata"] == {}
    size = 4096 - len('{"season":""}')
    assert client.patch(path, {"metadata": {"season": "x" * size}}).status == 200
    assert client.patch(path, {"metadata": {"season": "x" * (size + 1)}}).problems == {("metadata", "too_long")}


def test_account_keys_cannot_change_the_uid_of_their_account(server: Any, owned: Owned) -> None:
    for change in ({"uid": "mine"}, {"metadata": {"plan": "pro"}}):
        assert owned.owner.patch(f"/v1/accounts/{owned.id}", change).code == "forbidden"


def test_updates_merge_headers(owned: Owned) -> None:
    """Names are case-insensitive, and null removes a header."""
    path = "/v1/endpoints/main"
    owned.owner.patch(path, {"headers": {"Accept": "text/plain", "X-Team": "a"}})
    changed = owned.owner.patch(path, {"headers": {"accept": "*/*", "X-New": "b"}}).json["headers"]
    assert changed == {"X-Team": "********", "accept": "*/*", "X-New": "********"}
    assert set(owned.owner.patch(path, {"headers": {"x-team": None, "x-none": None}}).json["headers"]) == {
        "accept",
        "X-New",
    }
    many = {f"X-{number}": "1" for number in range(19)}
    assert owned.owner.patch(path, {"headers": many}).problems == {("headers", "headers_too_many")}
    assert owned.owner.patch(path, {"headers": None}).json["headers"] == {}
