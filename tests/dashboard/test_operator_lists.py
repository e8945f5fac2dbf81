"""The Accounts and Endpoints pages for operators."""

import re
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from playwright.sync_api import Page
from tests.dashboard.operators import sign_in_operator
from tests.dashboard.page_checks import check_page
from tests.dashboard.visitors import Guest, PageResponse, member, operator
from tests.e2e.harness import OPERATOR_KEY, Server

ACCOUNTS, ENDPOINTS = "/operator/accounts", "/operator/endpoints"


def problem(page: PageResponse, field: str) -> str:
    """Return the error message at a field."""
    assert page.status == 422
    return page.html.split(f'id="{field}-problem">')[1].split("</p>")[0]


def test_an_account_is_created_updated_opened_and_deleted(server: Server) -> None:
    guest, name = operator(server), f"Club <b>{uuid4().hex}</b>"
    page = guest.post(f"{ACCOUNTS}/new", name=name, contact_emails="a@a.example\r\n\r\nb@a.example")
    account = page.path.rpartition("/")[2]
    assert page.path == f"{ACCOUNTS}/{account}"
    assert f"Account {name} created." in page.text
    assert "<b>" not in page.html
    found = server.api().ok("GET", f"/v1/accounts/{account}")
    assert (found["name"], found["contact_emails"]) == (name, ["a@a.example", "b@a.example"])
    assert f'href="/accounts/{account}/overview"' in page.html
    assert guest.get(f"/accounts/{account}/overview").status == 200

    page = guest.post(page.path, name="Another <i>name</i>", contact_emails="")
    assert "Account updated." in page.text
    found = server.api().ok("GET", f"/v1/accounts/{account}")
    assert (found["name"], found["contact_emails"]) == ("Another <i>name</i>", [])

    page = guest.post(f"{page.path}/delete", page=page.path)
    assert (page.path, "Account Another <i>name</i> deleted." in page.text) == (ACCOUNTS, True)
    assert guest.get(f"{ACCOUNTS}/{account}").status == 404
    assert server.api()("GET", f"/v1/accounts/{account}").status == 404


def test_a_resubmitted_form_creates_one_account(server: Server) -> None:
    guest, name = operator(server), f"Once {uuid4().hex}"
    form = guest.get(f"{ACCOUNTS}/new")
    once = re.findall(r'name="once" value="([^"]+)"', form.html)[0]
    pages = [guest.post(f"{ACCOUNTS}/new", token=form.token, name=name, once=once) for _ in range(2)]
    assert pages[0].path == pages[1].path
    assert guest.get(f"{ACCOUNTS}?search={name.split()[1]}").html.count(name) == 1


def test_an_invalid_account_shows_errors_at_its_fields(server: Server) -> None:
    guest = operator(server)
    page = guest.post(f"{ACCOUNTS}/new", name="", contact_emails="a@a.example\nnobody")
    assert problem(page, "name")
    assert "nobody" in page.html
    assert problem(page, "contact_emails")
    account, _ = server.account("Rapids")
    page = guest.post(f"{ACCOUNTS}/{account}", name="x" * 300)
    assert problem(page, "name")
    assert server.api().ok("GET", f"/v1/accounts/{account}")["name"] == "Rapids"


def test_an_account_has_an_own_id_and_metadata(server: Server) -> None:
    guest, uid = operator(server), f"club-{uuid4().hex}"
    page = guest.post(f"{ACCOUNTS}/new", name="Otters", uid=uid, metadata='{"plan": "<b>club</b>"}')
    assert (page.status, uid in page.text, "<b>club</b>" in page.text, "<b>" in page.html) == (200, True, True, False)
    assert guest.get(f"{ACCOUNTS}?search={uid}").html.count("Otters") == 1
    assert "has the uid" in problem(guest.post(f"{ACCOUNTS}/new", name="Seals", uid=uid, metadata=""), "uid")
    assert problem(guest.post(page.path, name="Otters", uid=uid, metadata="[]"), "metadata")
    version = re.findall(r'name="version" value="([0-9a-f]+)"', page.html)[0]
    server.api().ok("PATCH", f"/v1/accounts/{uid}", {"metadata": {"plan": "pro"}})
    stale = guest.post(page.path, name="Mine", uid=uid, metadata="", version=version)
    assert (stale.status, "Another person changed these settings" in stale.text) == (409, True)
    assert 'Name: Otters; Metadata: { "plan": "pro" }.' in stale.text
    assert guest.post(page.path, name="Otters", contact_emails="").status == 200
    kept = server.api().ok("GET", f"/v1/accounts/{uid}")
    assert (kept["uid"], kept["metadata"], kept["name"]) == (uid, {"plan": "pro"}, "Otters")


def test_a_portal_link_has_the_selected_email_and_role(server: Server) -> None:
    account, _ = server.account("Portal")
    guest, path = operator(server), f"{ACCOUNTS}/{account}"
    page = guest.post(f"{path}/portal-links", page=path, email="new@a.example", role="admin")
    assert page.status == 200
    link = re.findall(r"<code>(http[^<]*/enter/[^<]+)</code>", page.html)[0]
    assert link not in guest.get(f"{ACCOUNTS}/{account}").html
    other = Guest(server.url)
    other.post(urlsplit(link).path, follow=False)
    assert "new@a.example" in other.get(f"/accounts/{account}/overview").text
    page = guest.post(f"{path}/portal-links", page=path, email="", role="owner")
    assert "Use admin or a lower role" in problem(page, "role")
    page = guest.post(f"{path}/portal-links", page=path, email="nobody", role="member")
    assert problem(page, "email")
    assert 'value="nobody"' in page.html


def test_accounts_are_found_by_name_contact_and_id(server: Server) -> None:
    guest, word = operator(server), uuid4().hex
    account, _ = server.account(f"Found {word}")
    server.api().ok("PATCH", f"/v1/accounts/{account}", {"contact_emails": [f"coach@{word[:20]}.example"]})
    for search in (word.upper(), f"coach@{word[:10]}", account):
        page = guest.get(f"{ACCOUNTS}?search={search}")
        assert page.html.count(f'href="{ACCOUNTS}/{account}"') == 1
        assert "No endpoints" in page.text
    assert "No matching accounts" in guest.get(f"{ACCOUNTS}?search={word}x").text


def test_operators_disable_and_enable_endpoints(server: Server) -> None:
    account, _ = server.account("Switched <b>off</b>")
    acting, guest = server.api(OPERATOR_KEY, account), operator(server)
    endpoint = acting.endpoint("http://127.0.0.1:1/<i>hook</i>", description="<u>mine</u>")["id"]
    path = f"{ENDPOINTS}?search={endpoint}"
    page = guest.get(path)
    assert page.html.count(f'href="/accounts/{account}/endpoints/{endpoint}"') == 1
    for tag in ("<b>", "<i>", "<u>"):
        assert tag not in page.html
    page = guest.post(f"{ENDPOINTS}/{endpoint}/disable", page=path)
    assert "Endpoint disabled" in page.text
    assert "by an operator" in page.text
    found = acting.ok("GET", f"/v1/endpoints/{endpoint}")
    assert (found["state"], found["disabled_reason"]) == ("disabled", "operator")
    acting.send(1)
    page = guest.get(f"{ENDPOINTS}?filter=held&search={account}")
    assert re.search(r"\b[12] held", page.text)
    for name in ("disabled", "held"):
        assert endpoint in guest.get(f"{ENDPOINTS}?filter={name}&search={account}").html
    for name in ("failing", "warned", "paused"):
        assert "No matching endpoints" in guest.get(f"{ENDPOINTS}?filter={name}&search={account}").text
    page = guest.post(f"{ENDPOINTS}/{endpoint}/enable", page=path, held="drop")
    assert "Endpoint enabled." in page.text
    assert acting.ok("GET", f"/v1/endpoints/{endpoint}")["state"] == "enabled"
    actions = [each["action"] for each in acting.ok("GET", "/v1/audit-log")["data"]]
    assert actions[:2] == ["endpoint.enabled", "endpoint.disabled"]


def test_members_cannot_see_or_change_operator_pages(server: Server) -> None:
    account, _ = server.account("Curious")
    guest = member(server, account)
    endpoint = server.api(OPERATOR_KEY, account).endpoint("http://127.0.0.1:1/")["id"]
    token = guest.get(f"/accounts/{account}/endpoints").token
    for path in (ACCOUNTS, f"{ACCOUNTS}/new", f"{ACCOUNTS}/{account}", ENDPOINTS):
        assert guest.get(path).status == 404
    for path in (
        f"{ACCOUNTS}/new",
        f"{ACCOUNTS}/{account}",
        f"{ACCOUNTS}/{account}/portal-links",
        f"{ACCOUNTS}/{account}/delete",
        f"{ENDPOINTS}/{endpoint}/disable",
        f"{ENDPOINTS}/{endpoint}/enable",
    ):
        assert guest.post(path, token=token, name="Mine", role="owner").status == 404
    assert server.api().ok("GET", f"/v1/accounts/{account}")["name"] == "Curious"


@pytest.mark.parametrize("path", [f"{ACCOUNTS}/acc_{'0' * 32}", f"{ACCOUNTS}/nothing"])
def test_an_unknown_account_is_not_found(server: Server, path: str) -> None:
    guest = operator(server)
    assert guest.get(path).status == 404
    token = guest.get(ACCOUNTS + "/new").token
    for form in ("", "/portal-links", "/delete"):
        assert guest.post(path + form, token=token, name="x", role="member").status == 404
    assert guest.post(f"{ENDPOINTS}/ep_{'0' * 32}/disable", token=token).status == 404


def test_an_operator_creates_an_account_and_disables_its_endpoint(server: Server, page: Page) -> None:
    name = f"Journey {uuid4().hex[:8]}"
    sign_in_operator(page).goto(ACCOUNTS)
    page.get_by_role("link", name="Create account").first.click()
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Create account").click()
    page.get_by_text(f"Account {name} created.").wait_for()
    check_page(page)
    account = page.url.rpartition("/")[2]
    server.api(OPERATOR_KEY, account).endpoint("http://127.0.0.1:1/")
    page.goto(f"{ENDPOINTS}?search={account}")
    page.get_by_role("button", name="Disable endpoint").click()
    page.locator(":popover-open").get_by_role("button", name="Disable").click()
    page.get_by_text("Endpoint disabled").wait_for()
    page.goto(f"{ACCOUNTS}/{account}")
    page.get_by_role("button", name="Delete account").click()
    page.locator(":popover-open").get_by_role("button", name="Delete account").click()
    page.get_by_text(f"Account {name} deleted.").wait_for()
