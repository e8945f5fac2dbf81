"""Authentication to endpoints in the dashboard: the form, the page and the warning about a certificate."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme
from playwright.sync_api import expect
from tests.dashboard.browsing import DESKTOP, WITHOUT_SCRIPTS, OpenPage, Screen
from tests.dashboard.page_checks import check_page
from tests.dashboard.visitors import Guest, PageResponse, member
from tests.e2e.harness import Api, Server

URL = "https://example.com/webhook"
OAUTH = {
    "auth_type": "oauth2_client_credentials", "token_url": "https://login.example.com/token?tenant=7",
    "client_id": "uplift <b>", "client_secret": "geheim-1", "scope": "a:b c",
}  # fmt: skip
CA = trustme.CA()


@pytest.fixture
def account(server: Server) -> tuple[str, Api]:
    """A new account, and an operator's API client for it."""
    return server.account()


def certificate(days: int = 365) -> dict[str, str]:
    """Return the fields of a client certificate that expires in `days` days."""
    issued = CA.issue_cert(common_name="uplift", not_after=datetime.now(UTC) + timedelta(days=days))
    chain = "".join(each.bytes().decode() for each in issued.cert_chain_pems)
    return {"certificate": chain, "private_key": issued.private_key_pem.bytes().decode()}


def create(guest: Guest, account: str, **fields: str) -> PageResponse:
    return guest.post(f"/accounts/{account}/endpoints/new", url=URL, once="once", **fields)


def newest(api: Api) -> Any:
    return api.ok("GET", "/v1/endpoints")["data"][0]


def test_oauth_credentials_are_created_and_changed(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    guest = member(server, name)
    assert create(guest, name, **OAUTH).status == 200
    made = newest(api)
    assert made["auth"] == {
        "type": "oauth2_client_credentials",
        "token_url": OAUTH["token_url"],
        "client_id": "uplift <b>",
        "scope": "a:b c",
    }
    own = f"/accounts/{name}/endpoints/{made['id']}"
    shown = guest.get(f"{own}/subscription")
    assert "OAuth 2.0 client credentials for uplift <b> at https://login.example.com/token" in shown.text
    assert "tenant" not in shown.html
    form = guest.get(f"{own}/edit")
    assert re.search(r'<option value="oauth2_client_credentials" selected', form.html)
    assert "geheim" not in shown.html + form.html

    unchanged = {**OAUTH, "client_secret": ""}
    assert guest.post(f"{own}/edit", url=URL, **unchanged).status == 200
    assert api.ok("GET", f"/v1/audit-log?subject={made['id']}&action=endpoint.changed")["data"] == []
    rejected = guest.post(f"{own}/edit", url=URL, **{**unchanged, "scope": "d"})
    assert (rejected.status, "Every change to these settings requires it" in rejected.text) == (422, True)
    assert guest.post(f"{own}/edit", url=URL, **{**OAUTH, "scope": "", "client_secret": "geheim-2"}).status == 200
    assert newest(api)["auth"]["scope"] is None
    activity = guest.get(f"{own}/activity")
    assert "geheim" not in activity.html
    assert "auth secret" in activity.text
    # A form of an earlier release has no field `auth_type`, and does not change the authentication.
    assert guest.post(f"{own}/edit", url=URL).status == 200
    assert newest(api)["auth"] is not None
    assert guest.post(f"{own}/edit", url=URL, auth_type="").status == 200
    assert newest(api)["auth"] is None


def test_a_certificate_is_created_and_replaced(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    guest = member(server, name)
    mtls = {"auth_type": "mtls", **certificate()}
    for missing, words in (("certificate", "Enter the certificate"), ("private_key", "and its private key")):
        rejected = create(guest, name, **{**mtls, missing: ""})
        assert (rejected.status, words in rejected.text) == (422, True)
    assert create(guest, name, **mtls).status == 200
    made = newest(api)
    own = f"/accounts/{name}/endpoints/{made['id']}"
    shown = guest.get(f"{own}/subscription")
    assert made["auth"]["fingerprint"] in shown.text
    assert "The client certificate expires" not in shown.text
    edit = guest.get(f"{own}/edit")
    assert "BEGIN PRIVATE KEY-----\n" not in shown.html + edit.html
    assert guest.post(f"{own}/edit", url=URL, auth_type="mtls").status == 200
    assert newest(api)["auth"] == made["auth"]
    swapped = {**mtls, "private_key": certificate()["private_key"]}
    rejected = guest.post(f"{own}/edit", url=URL, **swapped)
    assert "does not belong to the first certificate" in rejected.text

    assert guest.post(f"{own}/edit", url=URL, auth_type="mtls", **certificate(days=10)).status == 200
    for page in ("", "/subscription", "/activity"):
        assert "The client certificate expires on" in guest.get(own + page).text
    reader = member(server, name, "member")
    assert "Ask an owner, admin or manager" in reader.get(own).text


def test_problems_are_at_their_fields(server: Server, account: tuple[str, Api]) -> None:
    name, _ = account
    guest = member(server, name)
    wrong = {**OAUTH, "token_url": "x", "client_id": "", "scope": " a  b"}
    response = create(guest, name, **wrong, headers="Authorization: Basic abc")
    assert response.status == 422
    for field in ("token_url", "client_id", "scope"):
        assert f'id="{field}-problem"' in response.html, field
    assert re.search(r'<details class="more auth" open', response.html)


@pytest.mark.parametrize("screen", [DESKTOP, WITHOUT_SCRIPTS], ids=lambda screen: screen.name)
def test_the_form_shows_the_fields_of_the_kind(
    server: Server, account: tuple[str, Api], open_page: OpenPage, screen: Screen
) -> None:
    name, api = account
    guest = member(server, name)
    page = guest.share_session(open_page(screen))
    page.goto(f"/accounts/{name}/endpoints/new")
    page.get_by_label("URL", exact=True).fill(URL)
    page.get_by_text("Authentication", exact=True).click()
    expect(page.get_by_label("Token URL")).to_be_hidden()
    page.get_by_label("Authentication to your server").select_option("mtls")
    expect(page.get_by_label("Private key")).to_be_visible()
    expect(page.get_by_label("Token URL")).to_be_hidden()
    page.get_by_label("Authentication to your server").select_option("oauth2_client_credentials")
    expect(page.get_by_label("Private key")).to_be_hidden()
    page.get_by_label("Token URL").fill(OAUTH["token_url"])
    page.get_by_label("Client ID").fill("uplift")
    page.get_by_label("Client secret").fill("geheim")
    if screen.scripts:
        check_page(page)
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.get_by_role("heading", name="Secret")).to_be_visible()
    assert newest(api)["auth"]["client_id"] == "uplift"
