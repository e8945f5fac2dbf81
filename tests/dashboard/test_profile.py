"""The profile page, and the confirmation of the password."""

from urllib.parse import quote

import pytest
from tests.dashboard.visitors import Guest, member, operator
from tests.e2e.harness import OPERATOR_KEY, Server


def test_signing_out_everywhere_ends_every_session(server: Server) -> None:
    account, _ = server.account()
    here, there = (member(server, account, "member", "ada@t2-you.example") for _ in range(2))
    assert there.get("/you").status == 200

    response = here.post("/you/sign-out-everywhere", page="/you")

    assert "You are signed out everywhere." in response.text
    for guest in (here, there):
        assert guest.get("/you").path == "/sign-in"


def test_operators_have_no_profile_page(server: Server) -> None:
    assert operator(server).get("/you").status == 404


def test_an_operator_confirms_with_the_operator_key(server: Server) -> None:
    console = operator(server)
    wrong = console.post("/confirm", password="op_not_this_one", next="/docs")
    assert wrong.status == 401
    assert 'value="/docs"' in wrong.html
    right = console.post("/confirm", follow=False, password=OPERATOR_KEY, next="/docs")
    assert (right.status, right.headers["location"]) == (303, "/docs")


def test_a_member_without_a_password_confirms_with_a_new_link(server: Server) -> None:
    account, _ = server.account()
    guest = member(server, account, "member")
    assert "Sign in with a new link" in guest.get("/confirm?next=/you").text
    assert guest.post("/confirm", page="/you", password="anything", next="/you").status == 401


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example/", "/\\evil.example", "/\t/evil.example", "javascript:1"]
)
def test_a_confirmation_does_not_redirect_to_other_sites(server: Server, elsewhere: str) -> None:
    console = operator(server)
    assert '<a href="/">Back</a>' in console.get(f"/confirm?next={quote(elsewhere)}").html
    response = console.post("/confirm", follow=False, password=OPERATOR_KEY, next=elsewhere)
    assert response.headers["location"] == "/"


def test_a_changed_name_is_shown_to_members(server: Server) -> None:
    account, _ = server.account()
    ada = member(server, account, "admin", "ada@t10-you.example")
    response = ada.post("/you/name", page="/you", name="Ada <b>Lovelace</b>")
    assert "Name changed." in response.text
    assert 'value="Ada &lt;b&gt;Lovelace&lt;/b&gt;"' in response.html
    assert "Ada <b>Lovelace</b>" in ada.get(f"/accounts/{account}/settings").text
    wrong = ada.post("/you/name", page="/you", name=" ")
    assert (wrong.status, 'id="name-problem"' in wrong.html) == (422, True)


def test_a_password_change_ends_other_sessions(server: Server) -> None:
    account, _ = server.account()
    here, there = (member(server, account, "member", "eve@t11-you.example") for _ in range(2))
    short = here.post("/you/password", page="/you", password="short")
    assert (short.status, 'id="password-problem"' in short.html) == (422, True)
    assert "Password changed" in here.post("/you/password", page="/you", password="seven quiet otters").text
    assert (here.get("/you").path, there.get("/you").path) == ("/you", "/sign-in")

    wrong = here.post("/you/password", page="/you", present="not this one", password="eight quiet otters")
    assert (wrong.status, 'id="present-problem"' in wrong.html) == (422, True)
    response = here.post("/you/password", page="/you", present="seven quiet otters", password="eight quiet otters")
    assert "Password changed" in response.text
    fresh = Guest(server.url)
    assert fresh.post("/sign-in", email="eve@t11-you.example", password="eight quiet otters").status == 200
    assert fresh.post("/confirm", page="/you", follow=False, password="wrong", next="/you").status == 401
    right = fresh.post("/confirm", page="/you", follow=False, password="eight quiet otters", next="/you")
    assert (right.status, right.headers["location"]) == (303, "/you")


def test_a_member_leaves_an_account(server: Server) -> None:
    first, second = (server.account(name)[0] for name in ("First", "Second"))
    member(server, first, "member", "ivy@t12-you.example")
    ivy = member(server, second, "manager", "ivy@t12-you.example")
    ivy.post("/you/password", page="/you", password="seven quiet otters")
    ivy = Guest(server.url)
    ivy.post("/sign-in", email="ivy@t12-you.example", password="seven quiet otters")
    assert all(name in ivy.get("/you").text for name in ("First Member", "Second Manager"))

    assert ivy.post("/you/leave", page="/you", account=second).path.startswith(f"/accounts/{first}/")

    assert ivy.get(f"/accounts/{second}/overview").status == 404
    assert ivy.post("/you/leave", page="/you", account=second).status == 404
