"""People in a browser: invitation, sign-in, password reset, sign-out and member management."""

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect
from tests.dashboard.browsing import DESKTOP, WITHOUT_SCRIPTS, OpenPage, Screen
from tests.dashboard.page_checks import check_page
from tests.dashboard.visitors import Guest, member, open_overview
from tests.e2e.harness import Server

from uplift_server.service.sign_ins import FAILURES_PER_EMAIL_MAX

PASSWORD = "seven quiet otters swim"


def invitation(server: Server, account: str, email: str, role: str = "owner") -> str:
    """Return the path of an invitation link."""
    made = server.api().ok("POST", f"/v1/accounts/{account}/members", {"email": email, "role": role})
    return urlsplit(made["url"]).path


def join(page: Page, link: str, name: str = "Ana Otter") -> None:
    """Accept an invitation."""
    page.goto(link)
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Accept invitation").click()
    page.wait_for_url(re.compile("/get-started$"))


def sign_in(page: Page, email: str, password: str = PASSWORD) -> None:
    """Sign in with the form."""
    page.goto("/sign-in")
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def email_of(account: str, name: str = "ana") -> str:
    """Return a unique email address."""
    return f"{name}@{account.removeprefix('acc_')}.example"


@pytest.mark.parametrize("screen", [DESKTOP, WITHOUT_SCRIPTS], ids=lambda screen: screen.name)
def test_an_invited_person_joins_and_signs_in_again(server: Server, open_page: OpenPage, screen: Screen) -> None:
    account, _ = server.account("Rapids")
    email, page = email_of(account), open_page(screen)
    link = invitation(server, account, email)
    page.goto(link)
    expect(page.get_by_text(f"({email}) to this account with the role owner")).to_be_visible()
    page.get_by_label("Your name").fill("Ana Otter")
    page.get_by_label("Password").fill("short")
    page.get_by_role("button", name="Accept invitation").click()
    expect(page.locator("#password-problem")).to_contain_text("characters")
    expect(page.get_by_label("Your name")).to_have_value("Ana Otter")
    if screen.scripts:
        check_page(page)

    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Accept invitation").click()
    expect(page).to_have_url(f"{server.url}/accounts/{account}/get-started")
    expect(page.get_by_text("Welcome to Rapids.")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()

    sign_in(page, email, "seven quiet otters sink")
    expect(page.get_by_role("alert")).to_contain_text("Check both")
    expect(page.get_by_label("Email")).to_have_value(email)
    expect(page.get_by_label("Password")).to_have_value("")
    sign_in(page, email.upper())
    expect(page).to_have_url(f"{server.url}/accounts/{account}/get-started")

    page.goto(link)
    expect(page.get_by_role("alert")).to_contain_text("This invitation was accepted or withdrawn")


def test_an_invitation_page_does_not_show_whether_the_email_has_an_account(server: Server, page: Page) -> None:
    one, two = server.account("One")[0], server.account("Two")[0]
    known, new = email_of(one), email_of(two)
    join(page, invitation(server, one, known))
    page.get_by_role("button", name="Sign out").click()
    link = invitation(server, two, known)
    pages = [
        (email, Guest(server.url).get(path)) for email, path in ((known, link), (new, invitation(server, two, new)))
    ]
    texts = {shown.text.replace(email, "") for email, shown in pages}
    assert len(texts) == 1

    page.goto(link)
    page.get_by_label("Your name").fill("Ana Otter")
    page.get_by_label("Password").fill("seven quiet otters sink")
    page.get_by_role("button", name="Accept invitation").click()
    expect(page.get_by_role("alert")).to_contain_text("password is not correct")
    check_page(page)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Accept invitation").click()
    expect(page.get_by_text("Welcome to Two.")).to_be_visible()


def test_signing_out_everywhere_ends_other_sessions(server: Server, open_page: OpenPage) -> None:
    account, _ = server.account()
    here, there = open_page(), open_page()
    join(here, invitation(server, account, email_of(account)))
    sign_in(there, email_of(account))
    expect(there).to_have_url(re.compile("/get-started$"))

    here.goto("/you")
    here.get_by_role("button", name="Sign out everywhere").click()
    here.locator(":popover-open").get_by_role("button", name="Sign out everywhere").click()

    expect(here).to_have_url(f"{server.url}/sign-in")
    there.reload()
    expect(there).to_have_url(re.compile("/sign-in"))


def test_password_guessing_is_limited(server: Server, page: Page) -> None:
    account, _ = server.account()
    email = email_of(account)
    join(page, invitation(server, account, email))
    for _ in range(FAILURES_PER_EMAIL_MAX):
        assert Guest(server.url).post("/sign-in", email=email, password="wrong " * 3).status == 401

    stranger = Guest(server.url).post("/sign-in", email=email, password=PASSWORD, follow=False)

    assert stranger.status == 429
    assert re.search(r"\d+ (min|s)", stranger.text)
    # A visitor who is already signed in stays signed in.
    page.reload()
    expect(page).to_have_url(re.compile("/get-started$"))


def test_a_secret_is_revealed_soon_after_sign_in(server: Server, page: Page) -> None:
    account, api = server.account()
    join(page, invitation(server, account, email_of(account)))
    made = api.endpoint("http://127.0.0.1:9/x")
    page.goto(f"/accounts/{account}/endpoints/{made['id']}/security")
    expect(page.locator(".secret")).to_have_count(0)
    page.get_by_role("button", name="Reveal secret").click()
    expect(page.locator(".secret").first).to_have_text(made["secret"])


def test_an_owner_invites_changes_and_removes_a_member(server: Server, open_page: OpenPage) -> None:
    account, _ = server.account("Rapids")
    owner, ben = open_page(), open_page()
    open_overview(owner, member(server, account))
    owner.get_by_role("link", name="Settings").click()
    owner.get_by_label("Email").fill("no address")
    owner.get_by_label("Email").evaluate("each => each.form.noValidate = true")
    owner.get_by_role("button", name="Invite").click()
    expect(owner.locator("#email-problem")).to_be_visible()
    owner.get_by_label("Email").fill(email_of(account, "ben"))
    owner.get_by_role("combobox", name="Role", exact=True).select_option("manager")
    owner.get_by_role("button", name="Invite").click()
    link = owner.get_by_text("/invitations/").inner_text()

    join(ben, urlsplit(link).path, "Ben Beaver")
    ben.goto(f"/accounts/{account}/endpoints/new")
    expect(ben.get_by_role("button", name="Create endpoint")).to_be_visible()

    owner.goto(f"/accounts/{account}/settings")
    owner.get_by_label("Role of Ben Beaver", exact=True).select_option("member")
    owner.get_by_role("button", name="Change role of Ben Beaver").click()
    expect(owner.get_by_role("status").filter(has_text="changed to member")).to_be_visible()
    response = ben.reload()
    assert response is not None
    assert response.status == 403

    row = owner.get_by_role("row").filter(has_text="Ben Beaver")
    row.get_by_role("button", name="Remove member").click()
    row.locator(":popover-open").get_by_role("button", name="Remove").click()
    expect(owner.get_by_text("Member removed")).to_be_visible()
    ben.goto(f"/accounts/{account}/overview")
    expect(ben.get_by_text("Rapids")).to_have_count(0)
