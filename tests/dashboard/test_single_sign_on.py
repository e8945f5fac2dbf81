"""Single sign-on in the dashboard: its pages and cookies, and sign-ins with a certified OpenID provider."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.dashboard.browsing import WAIT_MS
from tests.dashboard.page_checks import check_page
from tests.dashboard.visitors import Guest, expire_confirmations, member, operator
from tests.e2e.harness import OPERATOR_KEY, Server, serving
from tests.engines import Engine
from tests.node_packages import installed
from tests.oidc_provider import CLIENT_ID, CLIENT_SECRET, GROUP, Provider, ann, identity_provider

FOLDER = Path(__file__).with_name("oidc")
TRANSACTION = "uplift_transaction"
SESSION = "uplift_session"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """A scripted identity provider."""
    with identity_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def sso(engine: Engine, provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that uses the scripted provider."""
    environ = {
        "UPLIFT_OIDC_ISSUER": provider.url,
        "UPLIFT_OIDC_CLIENT_ID": CLIENT_ID,
        "UPLIFT_OIDC_CLIENT_SECRET": CLIENT_SECRET,
        "UPLIFT_OIDC_OPERATOR_GROUP": GROUP,
    }
    with serving(tmp_path_factory.mktemp("sso") / "data", **environ) as server:
        yield server


def invite(server: Server, email: str, role: str = "owner") -> str:
    """Invite a person to a new account, and return the account."""
    account, _ = server.account()
    server.api().ok("POST", f"/v1/accounts/{account}/members", {"email": email, "role": role})
    return account


def begin(guest: Guest, page: str = "/") -> str:
    """Begin a sign-in, and return the URL at the provider."""
    return guest.get(f"/sign-in/oidc?next={page}", follow=False).headers["location"]


def sign_in(guest: Guest, provider: Provider, page: str = "/", **claims: object) -> str:
    """Sign in, and return the page that follows."""
    query = provider.authorize(begin(guest, page), ann(**claims))
    response = guest.get(f"/sign-in/oidc/callback?{query}", follow=False)
    assert response.status == 303, response.text
    return response.headers["location"]


def test_the_sign_in_page_offers_single_sign_on_only_if_it_is_configured(sso: Server, server: Server) -> None:
    for path in ("/sign-in", "/sign-in/operator"):
        assert 'href="/sign-in/oidc?next=/x"' in Guest(sso.url).get(f"{path}?next=/x").html.replace("%2F", "/")
        assert "single sign-on" not in Guest(server.url).get(path).text
    for path in ("/sign-in/oidc", "/sign-in/oidc/callback"):
        assert Guest(server.url).get(path).status == 404


def test_an_invitation_offers_single_sign_on(sso: Server, server: Server) -> None:
    for each, is_offered in ((sso, True), (server, False)):
        account, _ = each.account()
        invited = each.api().ok(
            "POST", f"/v1/accounts/{account}/members", {"email": "bo@example.com", "role": "member"}
        )
        page = Guest(each.url).get(urlsplit(invited["url"]).path)
        assert ('href="/sign-in/oidc"' in page.html) == is_offered


def test_a_person_signs_in_and_gets_a_new_session(sso: Server, provider: Provider) -> None:
    account = invite(sso, "ann@example.com")
    guest = member(sso, account, email="guest@example.com")
    earlier = guest.cookies[SESSION]
    assert sign_in(guest, provider, f"/accounts/{account}/endpoints") == f"/accounts/{account}/endpoints"
    assert guest.cookies[SESSION] != earlier
    assert TRANSACTION not in guest.cookies
    assert Guest(sso.url, {SESSION: earlier}).get("/", follow=False).headers["location"] == "/sign-in"
    profile = guest.get("/you")
    assert "linked to your identity" in profile.text
    assert "ann@example.com" in profile.text
    assert "signs in with single sign-on" in guest.get(f"/accounts/{account}/settings").text
    assert "Identity unlinked" in guest.post("/you/unlink", page="/you").text
    assert "You have not used single sign-on yet" in guest.get("/you").text


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/", "/\\evil.example", "/" + "x" * 2000])
def test_sign_in_does_not_redirect_to_other_sites(sso: Server, provider: Provider, elsewhere: str) -> None:
    assert sign_in(Guest(sso.url), provider, elsewhere, groups=GROUP) == "/"


def test_a_callback_works_once_and_only_in_its_browser(sso: Server, provider: Provider) -> None:
    guest, other = Guest(sso.url), Guest(sso.url)
    query = provider.authorize(begin(guest), ann(groups=GROUP))
    begin(other)
    for stranger in (Guest(sso.url), other, Guest(sso.url, {TRANSACTION: "x"}), Guest(sso.url, {TRANSACTION: ""})):
        response = stranger.get(f"/sign-in/oidc/callback?{query}")
        assert (response.status, SESSION in stranger.cookies) == (401, False)
        assert "began in another browser" in response.problem
    kept = guest.cookies[TRANSACTION]
    assert guest.get(f"/sign-in/oidc/callback?{query}", follow=False).status == 303
    replayed = Guest(sso.url, {TRANSACTION: kept}).get(f"/sign-in/oidc/callback?{query}")
    assert (replayed.status, "Single sign-on failed" in replayed.problem) == (401, True)
    # A repeated callback of a signed-in visitor leads to the dashboard.
    assert guest.get(f"/sign-in/oidc/callback?{query}", follow=False).headers["location"] == "/"


def test_a_rejected_person_sees_the_reason_and_the_other_ways_to_sign_in(sso: Server, provider: Provider) -> None:
    guest = Guest(sso.url)
    query = provider.authorize(begin(guest), ann(email="stranger@example.com", sub="stranger"))
    response = guest.get(f"/sign-in/oidc/callback?{query}")
    assert (response.status, SESSION in guest.cookies) == (403, False)
    assert "No account has stranger@example.com as a member." in response.problem
    assert 'name="password"' in response.html
    # Without a new authentication, the provider would identify the same person again.
    [link] = re.findall(r'href="(/sign-in/oidc[^"]*)">Sign in as another person<', response.html)
    other = guest.get(link.replace("&amp;", "&"), follow=False).headers["location"]
    assert "&prompt=login&" in other
    query = provider.authorize(begin(guest), ann(), error="access_denied", error_description="<b>")
    response = guest.get(f"/sign-in/oidc/callback?{query}")
    assert (response.status, "cancelled" in response.problem, "<b>" in response.html) == (401, True, False)


def test_members_and_operators_can_sign_in_otherwise_while_the_provider_is_down(
    sso: Server, provider: Provider
) -> None:
    guest = Guest(sso.url)
    query = provider.authorize(begin(guest), ann(groups=GROUP))
    provider.faults["/token"] = (503, b"{}")
    response = guest.get(f"/sign-in/oidc/callback?{query}")
    del provider.faults["/token"]
    assert (response.status, "identity provider does not respond" in response.problem) == (503, True)
    guest.post("/sign-in/operator", key=OPERATOR_KEY, follow=False)
    assert guest.get("/operator").status == 200


def test_an_operator_is_named_and_confirms_with_the_provider(sso: Server, provider: Provider) -> None:
    account, api = sso.account()
    endpoint = api.endpoint("https://example.com/hook")["id"]
    guest = Guest(sso.url)
    assert sign_in(guest, provider, groups=[GROUP]) == "/"
    fleet = guest.get("/")
    assert (fleet.path, "Ann Rivers <ann@example.com>" in fleet.text) == ("/operator", True)
    assert "Ann Rivers <ann@example.com>" in guest.get("/operator/audit-log").text
    assert guest.get("/you").status == 404
    page = f"/accounts/{account}/endpoints/{endpoint}/security"
    expire_confirmations(sso)
    assert f'href="/confirm?next={quote(page)}"' in guest.get(page).html
    confirm = guest.get("/confirm?next=/operator")
    assert 'name="password"' not in confirm.html
    [link] = re.findall(r'href="(/sign-in/oidc\?again=1[^"]*)"', confirm.html)
    url = guest.get(link.replace("&amp;", "&"), follow=False).headers["location"]
    assert "&prompt=login&max_age=0" in url
    guest.get(f"/sign-in/oidc/callback?{provider.authorize(url, ann(groups=[GROUP]))}", follow=False)
    shown = guest.post(f"{page}/reveal", page=page)
    assert "whsec_" in shown.html


def test_sign_out_leads_to_the_provider(sso: Server, provider: Provider) -> None:
    guest = Guest(sso.url)
    sign_in(guest, provider, groups=[GROUP])
    page = guest.post("/sign-out", page="/operator")
    assert f'content="0; url={provider.url}/sign-out?client_id=' in page.html
    assert "id_token_hint=" in page.html
    assert SESSION not in guest.cookies
    assert "You are signed out." in guest.get("/sign-in").text
    # Sign-out of a session that began with the operator key does not involve the provider.
    keyed = operator(sso)
    assert keyed.post("/sign-out", page="/operator").path == "/sign-in"


def test_cookies_are_for_this_host_only(provider: Provider, tmp_path: Path) -> None:
    environ = {
        "UPLIFT_OIDC_ISSUER": provider.url,
        "UPLIFT_OIDC_CLIENT_ID": CLIENT_ID,
        "UPLIFT_OIDC_CLIENT_SECRET": CLIENT_SECRET,
        "UPLIFT_PUBLIC_URL": "https://hooks.example.com",
    }
    with serving(tmp_path / "data", **environ) as server:
        response = Guest(server.url).get("/sign-in/oidc", follow=False)
        [cookie] = response.headers.getlist("set-cookie")
        assert (
            "redirect_uri=https%3A%2F%2Fhooks.example.com%2Fsign-in%2Foidc%2Fcallback" in response.headers["location"]
        )
        assert cookie.startswith(f"__Host-{TRANSACTION}=")
        assert cookie.split("; ")[1:] == ["Path=/", "Max-Age=600", "HttpOnly", "Secure", "SameSite=Lax"]


@pytest.fixture(scope="module")
def certified(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that uses a certified OpenID provider."""
    packages = installed(FOLDER / "package-lock.json")
    if isinstance(packages, str):
        if os.environ.get("CI"):
            pytest.fail(packages, pytrace=False)
        pytest.skip(packages)
    node = shutil.which("node")
    assert node is not None
    data = tmp_path_factory.mktemp("certified") / "data"
    data.mkdir()
    server = Server(data)
    command = [node, str(FOLDER / "provider.mjs"), str(packages), server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            server.environ |= {
                "UPLIFT_OIDC_ISSUER": process.stdout.readline().strip(),
                "UPLIFT_OIDC_CLIENT_ID": "uplift",
                "UPLIFT_OIDC_CLIENT_SECRET": "a-secret-of-the-tests",
                "UPLIFT_OIDC_OPERATOR_GROUP": "operators",
                "UPLIFT_OIDC_READ_ONLY_GROUP": "support",
            }
            yield server.start()
        finally:
            server.end()
            process.kill()


@pytest.fixture
def visitor(browser: Browser, certified: Server) -> Iterator[Page]:
    """A page of a browser that can also visit the provider."""
    with contextlib.closing(browser.new_context(base_url=certified.url)) as context:
        context.set_default_timeout(WAIT_MS)
        yield context.new_page()


def enter(page: Page, name: str, start: str = "/sign-in") -> None:
    """Sign in at the provider."""
    page.goto(start)
    page.get_by_role("link", name="Sign in with single sign-on").click()
    enter_credentials(page, name)


def enter_credentials(page: Page, name: str) -> None:
    """Fill in and submit the form of the provider."""
    page.locator('input[name="login"]').fill(name)
    page.locator('input[name="password"]').fill("any")
    page.get_by_role("button", name="Sign-in").click()


def consent(page: Page) -> None:
    """Let the provider send the claims."""
    page.get_by_role("button", name="Continue").click()


def test_a_member_signs_in_with_a_certified_provider(certified: Server, visitor: Page) -> None:
    account = invite(certified, "ann@example.com")
    enter(visitor, "ann", f"/accounts/{account}/settings")
    consent(visitor)
    expect(visitor).to_have_url(f"{certified.url}/accounts/{account}/settings")
    expect(visitor.get_by_text("signs in with single sign-on")).to_be_visible()
    # After sign-out, the provider asks for the credentials again.
    visitor.get_by_role("button", name="Sign out").click()
    expect(visitor).to_have_url(re.compile(r"/session/end"))
    visitor.get_by_role("button", name="Yes, sign me out").click()
    expect(visitor).to_have_url(re.compile(rf"{re.escape(certified.url)}/sign-in"))
    visitor.get_by_role("link", name="Sign in with single sign-on").click()
    enter_credentials(visitor, "ann")
    consent(visitor)
    expect(visitor).to_have_url(re.compile(rf"/accounts/{account}/"))


def test_an_operator_signs_in_and_confirms_with_a_certified_provider(certified: Server, visitor: Page) -> None:
    enter(visitor, "olga", "/operator/audit-log")
    consent(visitor)
    expect(visitor).to_have_url(f"{certified.url}/operator/audit-log")
    expect(visitor.locator(".who")).to_have_text("Olga Park <olga@example.com>")
    visitor.goto("/confirm?next=/operator/system")
    visitor.get_by_role("link", name="Sign in again").click()
    enter_credentials(visitor, "olga")
    expect(visitor).to_have_url(f"{certified.url}/operator/system")


def test_a_read_only_operator_signs_in_with_a_certified_provider(certified: Server, visitor: Page) -> None:
    account, api = certified.account()
    endpoint = api.endpoint("https://example.com/hook")
    enter(visitor, "rae", "/operator/audit-log")
    consent(visitor)
    expect(visitor).to_have_url(f"{certified.url}/operator/audit-log")
    expect(visitor.locator(".who")).to_have_text("Rae Stone <rae@example.com> (read-only)")
    [entry] = certified.api().ok("GET", "/v1/audit-log?action=operator.signed_in&limit=1")["data"]
    assert (entry["actor"]["name"], entry["details"]) == (
        "Rae Stone <rae@example.com>", {"by": "single sign-on", "read_only": True},
    )  # fmt: skip

    [cookie] = [each for each in visitor.context.cookies() if each.get("name") == SESSION]
    guest = Guest(certified.url, {SESSION: cookie["value"]})
    page = f"/accounts/{account}/endpoints/{endpoint['id']}"
    assert guest.get(page).status == 200
    rejected = guest.post(f"{page}/pause", page=page)
    assert (rejected.status, "You are signed in read-only." in rejected.text) == (403, True)
    assert api.ok("GET", f"/v1/endpoints/{endpoint['id']}")["state"] == endpoint["state"]


def test_the_pages_of_single_sign_on_are_accessible(certified: Server, visitor: Page) -> None:
    account = invite(certified, "ann@example.com")
    visitor.goto("/sign-in")
    check_page(visitor, "sign-in-single-sign-on")
    enter(visitor, "ann", "/you")
    consent(visitor)
    expect(visitor.get_by_role("heading", name="Single sign-on")).to_be_visible()
    check_page(visitor, "you-single-sign-on")
    visitor.goto(f"/confirm?next=/accounts/{account}/overview")
    check_page(visitor, "confirm-single-sign-on")
    # The sign-out page continues to the provider automatically. A response without content keeps the browser there.
    visitor.route("**/session/end?*", lambda route: route.fulfill(status=204))
    visitor.goto(f"/accounts/{account}/overview")
    visitor.get_by_role("button", name="Sign out").click()
    expect(visitor.get_by_role("link", name="Continue to your identity provider")).to_be_visible()
    check_page(visitor, "sign-out")


def test_a_certified_provider_rejects_and_is_rejected(certified: Server, visitor: Page) -> None:
    invite(certified, "ann@example.com")
    enter(visitor, "eve")
    consent(visitor)
    expect(visitor.locator(".problem")).to_contain_text("has not verified your email address")
    assert urlsplit(visitor.url).path == "/sign-in/oidc/callback"
    check_page(visitor, "sign-in-rejected")
    visitor.get_by_role("link", name="Sign in as another person").click()
    enter_credentials(visitor, "ann")
    consent(visitor)
    expect(visitor).to_have_url(re.compile(rf"{re.escape(certified.url)}/accounts/"))
    visitor.context.clear_cookies()
    visitor.goto("/sign-in/oidc")
    visitor.get_by_role("link", name="Cancel").click()
    expect(visitor.locator(".problem")).to_contain_text("cancelled")
