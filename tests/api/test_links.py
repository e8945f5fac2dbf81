"""Portal links and sign-in links over HTTP."""

from typing import Any


def test_a_portal_link_is_created_for_a_person_of_an_account(server: Any) -> None:
    account = server.account()
    response = server.operator.post(f"/v1/accounts/{account}/portal-links", {"email": "a@example.com", "role": "admin"})
    assert response.status == 201
    assert set(response.json) == {"id", "account", "email", "role", "expires_at", "url"}
    assert response.json["url"].startswith("https://hooks.example.com/enter/")
    token = response.json["url"].rpartition("/")[2]
    cookie = server.run(lambda: server.services.sessions.open_link(token, address=None))
    visitor = server.run(lambda: server.services.sessions.visitor(cookie))
    assert visitor.person.email == "a@example.com"
    assert [each.role.text for each in visitor.memberships] == ["admin"]


def test_the_body_is_optional(server: Any) -> None:
    account = server.account()
    for path in (f"/v1/accounts/{account}/portal-links", "/v1/sign-in-links"):
        response = server.operator.post(path)
        assert response.status == 201
        assert response.json.keys() >= {"url", "expires_at"}


def test_a_repeated_request_returns_the_same_link_until_it_is_used(server: Any) -> None:
    account = server.account()
    for path in (f"/v1/accounts/{account}/portal-links", "/v1/sign-in-links"):
        first, again = [server.operator.post(path, {}, Idempotency_Key=f"once {path}") for _ in range(2)]
        assert (first.status, again.status) == (201, 201)
        assert first.json == again.json
        assert again.headers["idempotency-replayed"] == "true"
        assert "idempotency-replayed" not in first.headers
        token = first.json["url"].rpartition("/")[2]
        server.run(lambda token=token: server.services.sessions.open_link(token, address=None))
        assert server.operator.post(path, {}, Idempotency_Key=f"once {path}").code == "idempotency_conflict"


def test_problems_name_the_field(server: Any) -> None:
    account = server.account()
    path = f"/v1/accounts/{account}/portal-links"
    assert server.operator.post(path, {"email": "a", "role": "x", "more": 1}).problems == {
        ("email", "email_invalid"),
        ("role", "role_unknown"),
        ("more", "unknown_field"),
    }
    assert server.operator.post(path, {"role": "owner"}).problems == {("role", "role_not_for_guests")}
    assert server.operator.post(f"/v1/accounts/acc_{'0' * 32}/portal-links").code == "not_found"


def test_unused_links_are_listed_and_revoked(server: Any) -> None:
    """Links are listed newest first, without their URLs. A used or revoked link is not found."""
    account, other = server.account(), server.account()
    path = f"/v1/accounts/{account}/portal-links"
    made = [server.operator.post(path, {"email": f"{n}@example.com"}).json for n in range(3)]
    server.operator.post(f"/v1/accounts/{other}/portal-links")
    server.operator.post("/v1/sign-in-links")
    shown = [{name: value for name, value in each.items() if name != "url"} for each in reversed(made)]
    assert server.operator.get(path).json == {"data": shown, "next_cursor": None, "prev_cursor": None}
    assert {name: shown[0][name] for name in ("account", "email", "role")} == {
        "account": account,
        "email": "2@example.com",
        "role": "member",
    }
    first = server.operator.get(f"{path}?limit=2").json
    rest = server.operator.get(f"{path}?limit=2&cursor={first['next_cursor']}").json
    assert (first["data"] + rest["data"], rest["next_cursor"]) == (shown, None)

    used, revoked, _ = made
    server.run(lambda: server.services.sessions.open_link(used["url"].rpartition("/")[2], address=None))
    assert server.operator.delete(f"/v1/accounts/{other}/portal-links/{revoked['id']}").code == "not_found"
    assert server.operator.delete(f"{path}/{revoked['id']}").status == 204
    token = revoked["url"].rpartition("/")[2]
    assert not server.run(lambda: server.services.sessions.can_open_link(token))
    for each in (used, revoked):
        assert server.operator.delete(f"{path}/{each['id']}").code == "not_found"
    assert [each["id"] for each in server.operator.get(path).json["data"]] == [made[2]["id"]]
    [entry] = server.operator.get(f"/v1/audit-log?action=link.revoked&subject={revoked['id']}").json["data"]
    assert (entry["account"], entry["details"]) == (account, {"email": "1@example.com", "role": "member"})
