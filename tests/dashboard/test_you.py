"""What concerns a person, not an account; and the question for the password before secrets are shown."""

from urllib.parse import quote

import pytest
from playwright.sync_api import expect
from tests.dashboard.accessibility import check_accessibility
from tests.dashboard.browsing import LOOKS, Look, OpenPage
from tests.dashboard.visitors import bring, member, operator
from tests.e2e.harness import OPERATOR_KEY, Server


def test_signing_out_everywhere_ends_every_session(server: Server) -> None:
    account, _ = server.account()
    here, there = (member(server, account, "member", "ada@rapids.example") for _ in range(2))
    assert there.get("/you").status == 200

    answered = here.post("/you/sign-out-everywhere", page="/you")

    assert "You are signed out everywhere." in answered.text
    for guest in (here, there):
        assert guest.get("/you").path == "/sign-in"


def test_operators_have_no_page_of_their_own(server: Server) -> None:
    assert operator(server).get("/you").status == 404


def test_an_operator_confirms_with_the_operator_key(server: Server) -> None:
    console = operator(server)
    wrong = console.post("/confirm", password="op_not_this_one", next="/docs")
    assert wrong.status == 401
    assert 'value="/docs"' in wrong.html
    right = console.post("/confirm", follow=False, password=OPERATOR_KEY, next="/docs")
    assert (right.status, right.headers["location"]) == (303, "/docs")


def test_whoever_has_no_password_is_told_how_else(server: Server) -> None:
    account, _ = server.account()
    guest = member(server, account, "member")
    assert "Come again through a new link" in guest.get("/confirm?next=/you").text
    assert guest.post("/confirm", page="/you", password="anything", next="/you").status == 401


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example/", "/\\evil.example", "/\t/evil.example", "javascript:1"]
)
def test_a_confirmation_leads_nowhere_else(server: Server, elsewhere: str) -> None:
    console = operator(server)
    assert '<a href="/">Back</a>' in console.get(f"/confirm?next={quote(elsewhere)}").html
    answered = console.post("/confirm", follow=False, password=OPERATOR_KEY, next=elsewhere)
    assert answered.headers["location"] == "/"


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
def test_everybody_can_use_the_pages(server: Server, open_page: OpenPage, look: Look) -> None:
    accounts = [server.account(name)[0] for name in ("One", "Two")]
    guests = [member(server, account, "member", "ada@rapids.example") for account in accounts]
    page = open_page(look)
    bring(page, guests[-1])
    page.goto("/you")
    expect(page.get_by_text("ada@rapids.example").last).to_be_visible()
    check_accessibility(page)
    page.goto("/confirm")
    check_accessibility(page)
