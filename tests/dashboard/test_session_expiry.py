"""Forms whose session has ended: the visitor signs in again in place, and the form keeps its input."""

import hashlib
from collections.abc import Mapping

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect
from tests.dashboard.browsing import WITHOUT_SCRIPTS, OpenPage
from tests.dashboard.form_cases import CASES, PASSWORD, FormCase, Forms
from tests.dashboard.page_checks import check_page
from tests.dashboard.routes import forms
from tests.dashboard.visitors import Guest, PageResponse, member, operator, portal_link
from tests.e2e.harness import OPERATOR_KEY, Server

from uplift_server.dashboard.app import PAGES
from uplift_server.dashboard.forms import ENDED_FORM_BYTES_MAX
from uplift_server.dashboard.routes import Door
from uplift_server.dashboard.security import CSRF_FIELD, FORM_COOKIE, SESSION_COOKIE
from uplift_server.store.schema_people import sessions

DOORS = {page.path: page.door for page in PAGES if page.method == "POST"}
SIGNED_IN = [case for case in CASES if DOORS[case.path] is not Door.ANYBODY and "code" not in case.fields]
"""The forms that need a session. `test_second_factor.py` tests the forms that also ask for a password and a code."""
PASSWORDS = {"password", "present", "key"}
SECRETS = {"secret", "headers", "client_secret", "private_key"}
"""Fields that the page does not keep, but asks for again."""
OWN_FIELDS = {"csrf", "sign_in.csrf", "sign_in.email", "sign_in.password", "sign_in.key", "sign_in.link"}


def end_session(server: Server, guest: Guest) -> None:
    """End the session of a visitor, as if it had expired."""
    digest = hashlib.sha256(guest.cookies[SESSION_COOKIE].encode()).digest()
    query = sa.delete(sessions).where(sessions.c.digest == digest)
    assert server.place.run(lambda connection: connection.execute(query).rowcount) == 1


def email_of(guest: Guest, forms_: Forms) -> str:
    """Return the email address that the person signs in with."""
    return guest.get("/you").html.partition("You sign in with ")[2].partition(".</p>")[0] or forms_.email


def kept(response: PageResponse, path: str) -> dict[str, str]:
    """Return the fields of the form that the sign-in page keeps."""
    [form] = [form for form in forms(response.html) if form.action == path]
    return form.fields


def check_kept(found: dict[str, str], fields: Mapping[str, str]) -> None:
    """Check that a page keeps all fields except passwords and secrets, and asks for the secrets again."""
    expected = {name: "" if name in SECRETS else value for name, value in fields.items() if name not in PASSWORDS}
    expected |= {f"sign_in.{name}": "1" for name in SECRETS & set(fields)}
    assert {name: value for name, value in found.items() if name not in OWN_FIELDS} == expected


@pytest.mark.parametrize("case", SIGNED_IN, ids=lambda case: case.path)
def test_a_form_survives_the_end_of_its_session(case: FormCase, submitted: Forms, server: Server) -> None:
    path, fields, visitor = case.submission(submitted)
    is_operator = case.visitor == "operator"
    email = "" if is_operator else email_of(visitor, submitted)
    token = visitor.get("/operator" if is_operator else "/you").token
    end_session(server, visitor)
    before = submitted.entries(case.action) if case.action else []

    asked = visitor.send(path, {CSRF_FIELD: token, **fields}, origin=server.url)

    assert (asked.status, "This page keeps your input." in asked.text) == (401, True)
    found = kept(asked, path)
    check_kept(found, fields)
    assert not any(PASSWORD in value for value in found.values())
    if case.action is not None:
        assert len(submitted.entries(case.action)) == len(before)

    proof = {"sign_in.key": OPERATOR_KEY} if is_operator else {"sign_in.email": email, "sign_in.password": PASSWORD}
    secrets = {name: value for name, value in fields.items() if name in SECRETS}
    done = visitor.send(path, {**found, **secrets, **proof}, origin=server.url)
    if "present" in fields:
        assert (done.status, 'id="present-problem"' in done.html) == (422, True)
        return
    assert done.status == 303, done.text
    assert visitor.get(done.headers["location"]).status == 200
    if case.action is not None:
        assert len(submitted.entries(case.action)) == len(before) + 1


@pytest.mark.parametrize("case", [each for each in SIGNED_IN if each.visitor != "person"], ids=lambda case: case.path)
def test_a_form_survives_a_new_session_in_another_tab(case: FormCase, submitted: Forms, server: Server) -> None:
    path, fields, visitor = case.submission(submitted)

    asked = visitor.send(path, {CSRF_FIELD: "0" * 64, **fields}, origin=server.url)

    assert (asked.status, "Continue as" in asked.text) == (403, True)
    found = kept(asked, path)
    check_kept(found, fields)
    secrets = {name: value for name, value in fields.items() if name in SECRETS}
    assert visitor.send(path, {**found, **secrets}, origin=server.url).status == 303


def _strange_form(server: Server) -> tuple[Guest, str, dict[str, str]]:
    """Return a member whose session has ended, with the path and the fields of a filled-in form."""
    account, _ = server.account()
    guest, path = member(server, account), f"/accounts/{account}/endpoints/new"
    token = guest.get(path).token
    end_session(server, guest)
    return guest, path, {CSRF_FIELD: token, "url": "http://127.0.0.1:9/x"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "https://evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "none"},
    ],
    ids=str,
)
def test_a_form_without_proof_of_its_origin_is_rejected(server: Server, headers: dict[str, str]) -> None:
    guest, path, fields = _strange_form(server)
    proof = {"sign_in.key": OPERATOR_KEY, "sign_in.csrf": "0" * 64}
    response = guest.send(path, {**fields, **proof}, **headers)
    assert (response.status, "http://127.0.0.1:9/x" in response.html) == (403, False)


def test_a_sign_in_requires_the_token_of_its_page(server: Server) -> None:
    guest, path, fields = _strange_form(server)
    asked = guest.send(path, fields, origin=server.url)
    other = Guest(server.url)
    other.get("/sign-in")
    for token in ("", "0" * 64, kept(asked, path)["sign_in.csrf"]):
        sent = {**fields, "sign_in.key": OPERATOR_KEY, "sign_in.csrf": token}
        response = other.send(path, sent, origin=server.url)
        assert response.status == 401
        assert SESSION_COOKIE not in other.cookies
    guest.cookies.pop(FORM_COOKIE)
    sent = {**kept(asked, path), "sign_in.key": OPERATOR_KEY}
    assert guest.send(path, sent, origin=server.url).status == 401


def test_a_wrong_password_keeps_the_form(server: Server, submitted: Forms) -> None:
    guest, path, fields = _strange_form(server)
    found = kept(guest.send(path, fields, origin=server.url), path)
    proof = {"sign_in.email": submitted.email, "sign_in.password": "wrong otters"}
    response = guest.send(path, {**found, **proof}, origin=server.url)
    assert response.status == 401
    assert "The email address or password is not correct." in response.problem
    expected = {"url": fields["url"], "sign_in.email": submitted.email, "sign_in.password": "", "sign_in.key": ""}
    assert {name: value for name, value in kept(response, path).items() if name != "sign_in.csrf"} == expected
    assert guest.get("/", follow=False).headers["location"] == "/sign-in"


def test_a_person_without_access_changes_nothing(server: Server, submitted: Forms) -> None:
    guest, path, fields = _strange_form(server)
    found = kept(guest.send(path, fields, origin=server.url), path)
    proof = {"sign_in.email": submitted.email, "sign_in.password": PASSWORD}
    response = guest.send(path, {**found, **proof}, origin=server.url)
    assert response.status == 404
    account = path.split("/")[2]
    assert server.api(account=account).ok("GET", "/v1/endpoints")["data"] == []


def test_a_guest_continues_with_a_new_link(server: Server) -> None:
    account, api = server.account()
    guest, path = member(server, account), f"/accounts/{account}/endpoints/new"
    fields = {CSRF_FIELD: guest.get(path).token, "url": "http://127.0.0.1:9/guest"}
    end_session(server, guest)
    found = kept(guest.send(path, fields, origin=server.url), path)
    early = guest.send(path, {**found, "sign_in.link": "1"}, origin=server.url)
    assert (early.status, "You are not signed in yet." in early.text) == (401, True)
    guest.post(portal_link(server, account, role="manager"), follow=False)
    asked = guest.send(path, {**kept(early, path), "sign_in.link": "1"}, origin=server.url)
    assert (asked.status, "Continue as" in asked.text) == (403, True)
    assert guest.send(path, kept(asked, path), origin=server.url).status == 303
    assert [each["url"] for each in api.ok("GET", "/v1/endpoints")["data"]] == ["http://127.0.0.1:9/guest"]


def test_an_operator_signs_in_again_on_an_account_page(server: Server) -> None:
    account, api = server.account()
    guest, path = operator(server), f"/accounts/{account}/endpoints/new"
    fields = {CSRF_FIELD: guest.get(path).token, "url": "http://127.0.0.1:9/operator"}
    end_session(server, guest)
    found = kept(guest.send(path, fields, origin=server.url), path)
    assert guest.send(path, {**found, "sign_in.key": OPERATOR_KEY}, origin=server.url).status == 303
    assert len(api.ok("GET", "/v1/endpoints")["data"]) == 1


def test_secrets_are_asked_for_again(server: Server) -> None:
    account, api = server.account()
    guest, path = operator(server), f"/accounts/{account}/endpoints/new"
    url, mine = "http://127.0.0.1:9/secret", "my-own-secret-of-an-endpoint"
    fields = {CSRF_FIELD: guest.get(path).token, "url": url, "secret": mine, "headers": "X-Key: hush-hush"}
    end_session(server, guest)
    asked = guest.send(path, fields, origin=server.url)
    again = guest.send(path, {**kept(asked, path), "sign_in.key": OPERATOR_KEY}, origin=server.url)
    assert (again.status, "Enter the secret values again." in again.text) == (403, True)
    for page in (asked, again):
        assert mine not in page.html
        assert "hush-hush" not in page.html
    assert api.ok("GET", "/v1/endpoints")["data"] == []
    sent = {**kept(again, path), "secret": mine, "headers": "X-Key: hush-hush"}
    assert guest.send(path, sent, origin=server.url).status == 303
    [made] = api.ok("GET", "/v1/endpoints")["data"]
    assert api.ok("GET", f"/v1/endpoints/{made['id']}/secret")["secret"] == mine


def test_a_large_form_is_kept(server: Server) -> None:
    guest = operator(server)
    path, name = "/operator/event-types/new-type", "large.kept"
    token = guest.get(path).token
    example = '{"text": "' + "<" * 20_000 + '"}'
    fields = {CSRF_FIELD: token, "name": name, "group": "Large", "description": "Large", "example": example}
    end_session(server, guest)
    asked = guest.send(path, fields, origin=server.url)
    assert kept(asked, path)["example"] == example
    guest.send(path, {**kept(asked, path), "sign_in.key": OPERATOR_KEY}, origin=server.url)
    assert server.api().ok("GET", f"/v1/event-types/{name}")["example"]["text"] == "<" * 20_000
    too_large = guest.cookies.pop(SESSION_COOKIE) and {**fields, "example": "x" * ENDED_FORM_BYTES_MAX}
    rejected = guest.send(path, too_large, origin=server.url)
    assert (rejected.status, "Sign in in another tab" in rejected.text) == (413, True)


@pytest.mark.parametrize("path", ["/sign-in", "/sign-in/operator"])
def test_a_sign_in_form_of_an_earlier_session_can_be_submitted_again(server: Server, path: str) -> None:
    guest = operator(server)
    response = guest.send(path, {CSRF_FIELD: "0" * 64}, origin=server.url)
    assert (response.status, response.headers["location"]) == (303, path)
    assert SESSION_COOKIE in guest.cookies


def _fill_and_sign_in(page: Page, server: Server, guest: Guest, account: str, *, checks: bool) -> None:
    guest.share_session(page)
    page.goto(f"/accounts/{account}/endpoints/new")
    page.get_by_label("URL", exact=True).fill("http://127.0.0.1:9/browser")
    page.get_by_role("textbox", name="Description").fill("Ana's <laptop>\u2026")
    end_session(server, guest)
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.get_by_role("heading", name="Sign in to continue")).to_be_visible()
    if checks:
        check_page(page, "sign-in-again")
    page.get_by_label("Email").fill("ola@expiry.example")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in and continue", exact=True).click()
    expect(page.get_by_role("heading", name="Endpoint created")).to_be_visible()


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "without-scripts"])
def test_a_filled_form_survives_in_a_browser(server: Server, open_page: OpenPage, *, scripts: bool) -> None:
    account, api = server.account()
    guest = member(server, account, "owner", "ola@expiry.example")
    guest.post("/you/password", page="/you", password=PASSWORD)
    page = open_page() if scripts else open_page(WITHOUT_SCRIPTS)

    _fill_and_sign_in(page, server, guest, account, checks=scripts)

    page.reload()
    if scripts:
        page.go_back()
        expect(page.get_by_role("heading", name="Create endpoint")).to_be_visible()
    [made] = api.ok("GET", "/v1/endpoints")["data"]
    assert (made["url"], made["description"]) == ("http://127.0.0.1:9/browser", "Ana's <laptop>\u2026")
