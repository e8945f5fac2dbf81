"""Members and invitations over HTTP, for operators."""

from typing import Any

import pytest
from tests.service.world import PASSWORD

from uplift_server.core import ids
from uplift_server.core.security.rights import Role
from uplift_server.store import members, people

ANN = "ann@example.com"
FIELDS = {"id", "account", "email", "name", "role", "has_password", "created_at"}


def join(server: Any, account: str, email: str = ANN, role: str = "manager", password: str = PASSWORD) -> str:
    """Invite a person who accepts, and return the member ID."""
    made = server.operator.post(f"/v1/accounts/{account}/members", {"email": email, "role": role})
    invitation = ids.parse_prefixed(ids.INVITATION, made.json["id"])
    entrance = server.services.sessions._links
    token = entrance.invitation_url(invitation).rpartition("/")[2]
    server.run(lambda: server.services.sessions.accept_invitation(token, "Ann", password))
    return next(
        str(each["id"])
        for each in server.operator.get(f"/v1/accounts/{account}/members").json["data"]
        if each["email"] == email
    )


def test_a_person_is_invited_accepts_and_is_listed(server: Any) -> None:
    account = server.account()
    path = f"/v1/accounts/{account}/members"
    made = server.operator.post(path, {"email": "Ann@Example.com", "role": "manager"})
    assert made.status == 201
    assert set(made.json) == {"id", "account", "email", "role", "invited_by", "created_at", "expires_at"}
    assert (made.json["account"], made.json["email"], made.json["role"]) == (account, ANN, "manager")
    listed = server.operator.get(f"/v1/accounts/{account}/invitations").json
    assert listed == {"data": [made.json], "next_cursor": None}
    assert server.operator.get(path).json == {"data": [], "next_cursor": None}

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
    made = server.operator.post(f"/v1/accounts/{account}/members", {"email": ANN, "role": "member"}).json
    path = f"/v1/accounts/{account}/invitations/{made['id']}"
    assert server.operator.delete(path).status == 204
    assert server.operator.delete(path).code == "not_found"
    assert server.operator.get(f"/v1/accounts/{account}/invitations").json["data"] == []


def test_a_forgotten_password_is_replaced_through_the_operator(server: Any) -> None:
    account = server.account()
    member = join(server, account, "fay@example.com")
    answer = server.operator.post(f"/v1/accounts/{account}/members/{member}/password-reset")
    assert (answer.status, set(answer.json)) == (201, {"url", "expires_at"})
    token = answer.json["url"].removeprefix("https://hooks.example.com/passwords/")
    server.run(lambda: server.services.sessions.reset(token, "a wholly new one"))
    server.run(lambda: server.services.sessions.sign_in("fay@example.com", "a wholly new one", address=None))


def test_members_manage_their_own_account_through_the_same_services_only(server: Any) -> None:
    """A key does not have this right with any scope."""
    account = server.account()
    client = server.owner(account)
    for answer in (
        client.get(f"/v1/accounts/{account}/members"),
        client.post(f"/v1/accounts/{account}/members", {"email": ANN, "role": "owner"}),
        client.get(f"/v1/accounts/{account}/invitations"),
    ):
        assert answer.code == "forbidden"


def test_deleting_an_account_deletes_its_memberships(server: Any) -> None:
    account = server.account()
    join(server, account, "gus@example.com", "owner")
    seq = server.services.context.cache.accounts_by_id[ids.parse_prefixed(ids.ACCOUNT, account)].seq
    assert server.operator.delete(f"/v1/accounts/{account}").status == 204
    assert server.operator.get(f"/v1/accounts/{account}/members").code == "not_found"
    assert server.run(lambda: server.database.read(lambda c: people.find(c, "gus@example.com"))) is None
    assert server.run(lambda: server.database.read(lambda c: members.page(c, seq, limit=5))).items == []


@pytest.mark.parametrize("role", Role)
def test_every_role_can_be_granted(server: Any, role: Role) -> None:
    account = server.account()
    made = server.operator.post(f"/v1/accounts/{account}/members", {"email": ANN, "role": role.text})
    assert made.json["role"] == role.text
