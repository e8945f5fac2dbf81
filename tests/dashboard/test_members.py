"""The Members page: members, invitations and roles."""

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect
from tests.dashboard.browsing import OpenPage
from tests.dashboard.visitors import Guest, member, open_overview, operator
from tests.e2e.harness import Server

PASSWORD = "seven quiet otters swim"


def members_of(server: Server, account: str) -> dict[str, str]:
    """Return the roles of members by email address."""
    page = operator(server).get(f"/accounts/{account}/settings").html
    rows = re.findall(
        r'<td data-label="Name"><div class="email">([^<]*?)<.*?<option value="(\w+)" selected>', page, re.DOTALL
    )
    return {name.strip(): role for name, role in rows}


def member_id(server: Server, account: str, name: str) -> str:
    """Return the ID of a member."""
    page = operator(server).get(f"/accounts/{account}/settings").html
    found = re.search(rf">{re.escape(name)}<.*?/settings/members/(mem_\w+)/role", page, re.DOTALL)
    assert found is not None, page
    return found[1]


def create_member(server: Server, account: str, role: str, email: str) -> Guest:
    """Return a member with a password, who accepted an invitation."""
    invited = operator(server).post(
        f"/accounts/{account}/settings/invitations", page=f"/accounts/{account}/settings", email=email, role=role
    )
    found = re.search(r"/invitations/[\w-]+", invited.text)
    assert found is not None, invited.text
    guest = Guest(server.url)
    guest.post(found[0], name=email.partition("@")[0].title(), password=PASSWORD, follow=False)
    assert "uplift_session" in guest.cookies
    return guest


def test_an_owner_invites_a_person_who_joins_with_the_link(server: Server, page: Page, open_page: OpenPage) -> None:
    account, _ = server.account()
    open_overview(page, create_member(server, account, "owner", "olga@t2-members.example"))
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Email").fill("Ben@T2-members.example")
    page.get_by_label("Role", exact=True).select_option("manager")
    page.get_by_role("button", name="Invite").click()
    expect(page.get_by_text("Invitation created for ben@t2-members.example")).to_be_visible()
    page.get_by_role("button", name="Copy link").click()
    link = page.evaluate("navigator.clipboard.readText()")

    other = open_page()
    other.goto(urlsplit(link).path)
    other.get_by_label("Your name").fill("Ben")
    other.get_by_label("Password").fill(PASSWORD)
    other.get_by_role("button", name="Accept invitation").click()

    expect(other).to_have_url(re.compile(f"/accounts/{account}/get-started$"))
    assert members_of(server, account) == {"Olga": "owner", "Ben": "manager"}


def test_roles_are_changed_and_members_removed(server: Server, page: Page) -> None:
    account, _ = server.account()
    open_overview(page, create_member(server, account, "owner", "olga@t3-members.example"))
    ben = member(server, account, "member", "ben@t3-members.example")
    page.goto(f"/accounts/{account}/settings")
    page.get_by_role("combobox", name="Role of ben@t3-members.example").select_option("admin")
    page.get_by_role("button", name="Change role of ben@t3-members.example").click()
    expect(page.get_by_text("Role of ben@t3-members.example changed to admin.")).to_be_visible()
    assert ben.get(f"/accounts/{account}/settings/audit-log").status == 200

    row = page.get_by_role("row").filter(has_text="ben@t3-members.example")
    row.get_by_role("button", name="Remove member").click()
    row.locator(":popover-open").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("Member removed")).to_be_visible()
    assert ben.get(f"/accounts/{account}/overview").path == "/sign-in"


def test_the_last_owner_cannot_be_removed(server: Server) -> None:
    account, _ = server.account()
    olga = create_member(server, account, "owner", "olga@t4-members.example")
    name, settings = member_id(server, account, "Olga"), f"/accounts/{account}/settings"
    for response in (
        olga.post(f"{settings}/members/{name}/remove", page=settings),
        olga.post(f"{settings}/members/{name}/role", page=settings, role="member"),
        olga.post("/you/leave", page="/you", account=account),
    ):
        assert response.status == 200
        assert "An account must have an owner." in response.problem
    assert members_of(server, account) == {"Olga": "owner"}


def test_an_admin_cannot_change_owners(server: Server) -> None:
    account, _ = server.account()
    create_member(server, account, "owner", "olga@t5-members.example")
    admin = create_member(server, account, "admin", "ada@t5-members.example")
    name, settings = member_id(server, account, "Olga"), f"/accounts/{account}/settings"
    shown = admin.get(settings).html
    assert f"/members/{name}/" not in shown
    assert '<option value="owner"' not in shown
    assert admin.post(f"{settings}/members/{name}/remove", page=settings).status == 403
    assert admin.post(f"{settings}/members/{name}/role", page=settings, role="member").status == 403
    assert (
        admin.post(f"{settings}/invitations", page=settings, email="x@t5-members.example", role="owner").status == 403
    )
    assert members_of(server, account)["Olga"] == "owner"


@pytest.mark.parametrize("role", ["member", "manager"])
def test_other_roles_are_redirected_to_the_contacts(server: Server, role: str) -> None:
    account, _ = server.account()
    someone, settings = member(server, account, role), f"/accounts/{account}/settings"
    assert someone.get(settings).path == f"{settings}/contacts"
    assert someone.post(f"{settings}/invitations", page=settings, email="x@a.example", role="member").status == 403


def test_an_invitation_is_listed_and_withdrawn(server: Server) -> None:
    account, _ = server.account()
    admin, settings = member(server, account, "admin"), f"/accounts/{account}/settings"
    made = admin.post(f"{settings}/invitations", page=settings, email="ben@t8-members.example", role="member")
    link = re.search(r"/invitations/[\w-]+", made.text)
    assert link is not None
    shown = admin.get(settings)
    assert "Pending invitations Email Role Invited by Expires Actions ben@t8-members.example Member" in shown.text
    withdraw = re.search(rf"{settings}/invitations/inv_\w+/withdraw", shown.html)
    assert withdraw is not None
    assert "Invitation withdrawn" in admin.post(withdraw[0], page=settings).text
    assert Guest(server.url).get(link[0]).status == 404
    assert "Pending invitations" not in admin.get(settings).text


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"email": "<b>", "role": "member"}, "email"), ({"email": "a@b.example", "role": "king"}, "role")],
)
def test_an_invalid_invitation_shows_an_error_at_its_field(server: Server, fields: dict[str, str], field: str) -> None:
    account, _ = server.account()
    admin, settings = member(server, account, "admin"), f"/accounts/{account}/settings"
    response = admin.post(f"{settings}/invitations", page=settings, **fields)
    assert response.status == 422
    assert f'id="{field}-problem"' in response.html
    assert 'value="&lt;b&gt;"' in response.html or field == "role"


def test_members_of_another_account_are_not_found(server: Server) -> None:
    other, _ = server.account("Other")
    member(server, other, "member", "theirs@t11-members.example")
    theirs = member_id(server, other, "theirs@t11-members.example")
    account, _ = server.account()
    admin = member(server, account, "admin")
    for owner in (account, other):
        for action, fields in (("remove", {}), ("role", {"role": "manager"})):
            path = f"/accounts/{owner}/settings/members/{theirs}/{action}"
            assert admin.post(path, page="/you", **fields).status == 404
    assert members_of(server, other) == {"theirs@t11-members.example": "member"}


def test_an_operator_creates_a_password_reset_link(server: Server) -> None:
    account, _ = server.account()
    create_member(server, account, "owner", "olga@t12-members.example")
    name, settings = member_id(server, account, "Olga"), f"/accounts/{account}/settings"
    made = operator(server).post(f"{settings}/members/{name}/password-link", page=settings)
    link = re.search(r"http://\S+/passwords/\S+", made.text)
    assert link is not None
    guest = Guest(server.url)
    assert guest.post(urlsplit(link[0]).path, password="another quiet otter").status == 200
    assert guest.get("/you").status == 200
    owner = member(server, account, "admin", "ada@t12-members.example")
    assert owner.post(f"{settings}/members/{name}/password-link", page=settings).status == 404
