"""Members and invitations over HTTP, for operators."""

from typing import Any

import pytest
from tests.service.world import PASSWORD

from uplift_server.core import ids
from uplift_server.core.security import totp
from uplift_server.core.security.rights import Role
from uplift_server.store import members, people
from uplift_server.store.pages import PageRequest

ANN = "ann@example.com"
FIELDS = {"id", "account", "email", "name", "role", "has_password", "has_second_factor", "created_at"}


def join(server: Any, account: str, email: str = ANN, role: str = "manager", password: str = PASSWORD) -> str:
    """Invite a person, accept the invitation, and return the member ID."""
    created = server.operator.post(f"/v1/accounts/{account}/members", {"email": email, "role": role})
    invitation = ids.parse_prefixed(ids.INVITATION, created.json["id"])
    links = server.services.sessions._links
    token = links.invitation_url(invitation).rpartition("/")[2]
    server.run(lambda: server.services.sessions.accept_invitation(token, "Ann", password))
    return next(
        str(each["id"])
        for each in server.operator.get(f"/v1/accounts/{account}/members").json["data"]
        if each["email"] == email
    )


def test_a_person_is_invited_accepts_and_is_listed(server: Any) -> None:
    account = server.account()
    path = f"/v1/accounts/{account}/members"
    created = server.operator.post(path, {"email": "Ann@Example.com", "role": "manager"})
    assert created.status == 201
    assert set(created.json) == {"id", "account", "email", "role", "invited_by", "created_at", "expires_at"}
    assert (created.json["account"], created.json["email"], created.json["role"]) == (account, ANN, "manager")
    listed = server.operator.get(f"/v1/accounts/{account}/invitations").json
    assert listed == {"data": [created.json], "next_cursor": None, "prev_cursor": None}
    assert server.operator.get(path).json == {"data": [], "next_cursor": None, "prev_cursor": None}

    member = join(server, account)

    [found] = server.operator.get(path).json["data"]
    assert set(found) == FIELDS
    assert (found["id"], found["email"], found["name"], found["role"], found["has_password"]) == (
        member, ANN, "Ann", "manager", True,
    )  # fmt: skip
    assert server.operator.get(f"/v1/accounts/{account}/invitations").json["data"] == []


def test_a_role_is_changed_and_a_member_removed(server: Any) -> None:
    account = server.account()
    member = join(server, account, "bob@example.com")
    path = f"/v1/accounts/{account}/members/{member}"
    changed = server.operator.patch(path, {"role": "owner"})
    assert (changed.status, changed.json["role"]) == (200, "owner")
    assert server.operator.patch(path, {"role": "member"}).code == "conflict"
    assert server.operator.delete(path).code == "conflict"
    join(server, account, "eve@example.com", "owner")
    assert server.operator.delete(path).status == 204
    assert server.operator.delete(path).code == "not_found"
    assert server.operator.patch(path, {"role": "member"}).code == "not_found"


def test_problems_name_the_field(server: Any) -> None:
    account = server.account()
    path = f"/v1/accounts/{account}/members"
    assert server.operator.post(path, {}).problems == {("email", "required"), ("role", "required")}
    assert server.operator.post(path, {"email": "x", "role": "boss", "more": 1}).problems == {
        ("email", "email_invalid"),
        ("role", "role_unknown"),
        ("more", "unknown_field"),
    }
    member = join(server, account, "cat@example.com")
    assert server.operator.post(path, {"email": "CAT@example.com", "role": "member"}).problems == {
        ("email", "member_exists")
    }
    assert server.operator.patch(f"{path}/{member}", {"role": "boss"}).problems == {("role", "role_unknown")}
    assert server.operator.patch(f"{path}/{member}", {}).problems == {("role", "required")}


def test_a_repeated_request_returns_the_same_invitation(server: Any) -> None:
    path = f"/v1/accounts/{server.account()}/members"
    body = {"email": "dan@example.com", "role": "member"}
    first, again = [server.operator.post(path, body, Idempotency_Key="invite dan") for _ in range(2)]
    assert first.json == again.json
    assert again.headers["idempotency-replayed"] == "true"
    assert server.operator.post(path, {**body, "role": "admin"}, Idempotency_Key="invite dan").status == 409


def test_an_invitation_is_withdrawn(server: Any) -> None:
    account = server.account()
    created = server.operator.post(f"/v1/accounts/{account}/members", {"email": ANN, "role": "member"}).json
    path = f"/v1/accounts/{account}/invitations/{created['id']}"
    assert server.operator.delete(path).status == 204
    assert server.operator.delete(path).code == "not_found"
    assert server.operator.get(f"/v1/accounts/{account}/invitations").json["data"] == []


def test_an_operator_creates_a_password_reset_link(server: Any) -> None:
    account = server.account()
    member = join(server, account, "fay@example.com")
    response = server.operator.post(f"/v1/accounts/{account}/members/{member}/password-reset")
    assert (response.status, set(response.json)) == (201, {"url", "expires_at"})
    token = response.json["url"].removeprefix("https://hooks.example.com/passwords/")
    server.run(lambda: server.services.sessions.reset(token, "a wholly new one"))
    server.run(lambda: server.services.sessions.sign_in("fay@example.com", "a wholly new one", address=None))


def test_an_operator_resets_a_second_factor(server: Any) -> None:
    account = server.account()
    member = join(server, account, "gil@example.com")
    path = f"/v1/accounts/{account}/members/{member}/second-factor"
    assert server.operator.delete(path).code == "conflict"
    services, password = server.services, PASSWORD
    cookie = server.run(lambda: services.sessions.sign_in("gil@example.com", password, address=None))
    visitor = server.run(lambda: services.sessions.visitor(cookie))
    secret = services.second_factor.new_secret()
    code = totp.code_at(secret, totp.step_at(services.context.now()))
    server.run(lambda: services.second_factor.turn_on(visitor, secret, code, password, address=None))
    members = f"/v1/accounts/{account}/members"
    assert [each["has_second_factor"] for each in server.operator.get(members).json["data"]] == [True]
    assert server.operator.delete(path).status == 204
    assert [each["has_second_factor"] for each in server.operator.get(members).json["data"]] == [False]
    [entry] = server.operator.get("/v1/audit-log?action=member.second_factor_reset").json["data"]
    assert (entry["subject"], entry["account"]) == (member, account)


def test_an_account_key_cannot_manage_members(server: Any) -> None:
    account = server.account()
    client = server.owner(account)
    for response in (
        client.get(f"/v1/accounts/{account}/members"),
        client.post(f"/v1/accounts/{account}/members", {"email": ANN, "role": "owner"}),
        client.get(f"/v1/accounts/{account}/invitations"),
    ):
        assert response.code == "forbidden"


def test_deleting_an_account_deletes_its_memberships(server: Any) -> None:
    account = server.account()
    join(server, account, "gus@example.com", "owner")
    seq = server.services.context.cache.accounts_by_id[ids.parse_prefixed(ids.ACCOUNT, account)].seq
    assert server.operator.delete(f"/v1/accounts/{account}").status == 204
    assert server.operator.get(f"/v1/accounts/{account}/members").code == "not_found"
    assert server.run(lambda: server.database.read(lambda c: people.find(c, "gus@example.com"))) is None
    assert server.run(lambda: server.database.read(lambda c: members.page(c, seq, PageRequest(5)))).items == []


@pytest.mark.parametrize("role", Role)
def test_every_role_can_be_granted(server: Any, role: Role) -> None:
    account = server.account()
    created = server.operator.post(f"/v1/accounts/{account}/members", {"email": ANN, "role": role.text})
    assert created.json["role"] == role.text
