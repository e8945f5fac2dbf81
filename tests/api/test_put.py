"""`PUT` of accounts and endpoints: create or update under the operator's own ID."""

from typing import Any

URL = "https://example.com/uplift"
_number = iter(range(1_000_000))


def unique(prefix: str) -> str:
    """Return a new uid."""
    return f"{prefix}-{next(_number)}"


def test_an_account_is_created_then_updated(server: Any) -> None:
    """Omitted fields stay unchanged, and `metadata` replaces all values."""
    operator, uid = server.operator, unique("club")
    path = f"/v1/accounts/{uid}"
    created = operator.put(path, {"name": "Club", "contact_emails": ["a@example.com"], "metadata": {"plan": "a"}})
    account = created.json
    assert (created.status, account["uid"], account["metadata"]) == (201, uid, {"plan": "a"})
    assert created.headers["location"] == f"/v1/accounts/{account['id']}"
    again = operator.put(path, {"name": "Otters"})
    assert (again.status, again.headers.get("location")) == (200, None)
    assert again.json | {"updated_at": ""} == account | {"name": "Otters", "updated_at": ""}
    assert operator.put(path, {"name": "Otters", "metadata": {"b": "c"}}).json["metadata"] == {"b": "c"}
    by_id = operator.put(f"/v1/accounts/{account['id']}", {"name": "Seals", "uid": uid})
    assert (by_id.status, by_id.json["name"], by_id.json["uid"]) == (200, "Seals", uid)
    assert [each["id"] for each in operator.get("/v1/accounts").json["data"] if each["uid"] == uid] == [account["id"]]
    deleted = operator.delete(path)
    assert (deleted.status, operator.put(f"/v1/accounts/{account['id']}", {"name": "x"}).code) == (204, "not_found")
    recreated = operator.put(path, {"name": "New"})
    assert (recreated.status, recreated.json["id"] != account["id"]) == (201, True)


def test_an_endpoint_is_created_then_updated(server: Any) -> None:
    """Only the creation returns the secret and sends the registration event."""
    account = server.account()
    owner = server.owner(account)
    path = "/v1/endpoints/main"
    wanted = {"url": URL, "event_types": ["movement.*"], "headers": {"X-A": "1"}, "max_in_flight": 2}
    created = owner.put(path, wanted)
    endpoint = created.json
    secret = endpoint.pop("secret")
    assert (created.status, endpoint["uid"], endpoint["event_types"]) == (201, "main", ["movement.*"])
    assert created.headers["location"] == f"/v1/endpoints/{endpoint['id']}"
    again = owner.put(path, wanted)
    changing = {"updated_at": "", "oldest_due_at": ""}
    assert (again.status, again.json | changing) == (200, endpoint | changing)
    changed = owner.put(path, {"url": URL + "/b", "headers": {"X-B": "2"}, "secret": secret}).json
    assert (changed["url"], set(changed["headers"])) == (URL + "/b", {"X-B"})
    assert (changed["event_types"], changed["max_in_flight"]) == (["movement.*"], 2)
    assert owner.put(path, {"url": URL, "secret": "x" * 20}).problems == {("secret", "secret_differs")}
    assert owner.put(f"/v1/endpoints/{endpoint['id']}", {"url": URL, "secret": "x" * 20}).problems == {
        ("secret", "secret_differs")
    }
    assert owner.get(path).json["url"] == URL + "/b"
    assert [each["type"] for each in owner.get("/v1/events").json["data"]] == ["webhook.created"]
    chosen = owner.put("/v1/endpoints/other", {"url": URL, "secret": "x" * 20})
    assert (chosen.status, chosen.json["secret"]) == (201, "x" * 20)


def test_an_endpoint_belongs_to_the_account_of_the_call(server: Any) -> None:
    one, two = (server.owner(server.account()) for _ in range(2))
    created = [owner.put("/v1/endpoints/main", {"url": URL}) for owner in (one, two)]
    assert [each.status for each in created] == [201, 201]
    assert created[0].json["id"] != created[1].json["id"]
    assert two.put(f"/v1/endpoints/{created[0].json['id']}", {"url": URL}).code == "not_found"
    assert server.operator.put("/v1/endpoints/main", {"url": URL}).code == "account_required"
    by_id = server.operator.put(f"/v1/endpoints/{created[0].json['id']}", {"url": URL + "/b"})
    assert (by_id.status, by_id.json["uid"]) == (200, "main")


def test_a_put_reports_all_problems(server: Any) -> None:
    owner = server.owner(server.account())
    for client, path, known in ((server.operator, "/v1/accounts", "name"), (owner, "/v1/endpoints", "url")):
        for uid, code in (("ep_x", "uid_reserved"), ("a%20b", "uid_invalid"), ("a" * 129, "uid_invalid")):
            response = client.put(f"{path}/{uid}", {"no_such_field": 1})
            assert response.problems == {("uid", code), (known, "required"), ("no_such_field", "unknown_field")}
    assert owner.put("/v1/endpoints/main", {"url": URL, "uid": "other"}).problems == {("uid", "uid_mismatch")}
    assert owner.get("/v1/endpoints/main").code == "not_found"


def test_a_put_of_a_stale_version_changes_nothing(server: Any) -> None:
    owner = server.owner(server.account())
    uid = unique("club")
    for client, path, body in (
        (server.operator, f"/v1/accounts/{uid}", {"name": "Club"}),
        (owner, "/v1/endpoints/main", {"url": URL}),
    ):
        assert client.put(path, body, if_match="*").status == 412
        assert client.get(path).code == "not_found"
        etag = client.put(path, body).headers["etag"]
        changed = {**body, "metadata": {"season": "2026"}}
        assert client.put(path, changed, if_match=etag).status == 200
        assert client.put(path, body, if_match=etag).code == "precondition_failed"
        assert client.get(path).json["metadata"] == {"season": "2026"}
