"""Back and reload after forms: the path of each form shows a page, and a reload never submits a form twice."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page as BrowserPage
from playwright.sync_api import expect
from tests.dashboard.form_cases import CASES, FormCase, Forms
from tests.dashboard.page_checks import check_page
from tests.dashboard.routes import path_with_ids
from tests.dashboard.visitors import Guest, PageResponse, member, operator
from tests.e2e.harness import Server, serving

from uplift_server.dashboard.app import PAGES
from uplift_server.dashboard.routes import Door, Page
from uplift_server.dashboard.security import CSRF_FIELD, SESSION_COOKIE, SHOWN_COOKIE
from uplift_server.dashboard.shown_secrets import SECRET_BYTES_MAX, SHOWN_SECONDS, SecretCookies

FORMS = [page for page in PAGES if page.method == "POST"]
READABLE = {page.path for page in PAGES if page.method == "GET"}
_SECRET = re.compile(
    r"whsec_[\w+/=]{20,}|my-own-\w+|(?:sk|svc)_[0-9a-f]{20,}|http://\S+/(?:enter|passwords|invitations)/[\w.-]+"
    r"|\b(?:[a-z2-7]{4}-){3}[a-z2-7]{4}\b"
)


def secrets_in(page: PageResponse) -> set[str]:
    """Return the one-time secrets on a page."""
    return set(_SECRET.findall(page.text))


def test_each_form_has_a_case() -> None:
    assert sorted(case.path for case in CASES) == sorted(page.path for page in FORMS)


@pytest.mark.parametrize("page", FORMS, ids=lambda page: page.path)
def test_the_path_of_a_form_has_a_page(page: Page, submitted: Forms) -> None:
    assert (page.back is None) == (page.path in READABLE)
    ids = {**submitted.account.ids, "token": "t" * 43}
    path = path_with_ids(page, ids)
    visitor = submitted.operator if page.door is Door.OPERATOR else submitted.owner

    shown = visitor.get(path)

    assert shown.status == 200, (path, shown.path)
    if page.back is not None:
        first = visitor.get(path, follow=False)
        target = urlsplit(first.headers["location"]).path
        assert (first.status, target) == (303, path_with_ids(page, ids, page.back).partition("?")[0])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path)
def test_back_and_reload_after_a_form(case: FormCase, submitted: Forms, server: Server) -> None:
    path, fields, visitor = case.submission(submitted)
    fields[CSRF_FIELD] = (visitor.get("/you") if case.visitor != "operator" else visitor.get("/operator")).token
    before = submitted.entries(case.action) if case.action else []

    response = visitor.send(path, fields)

    assert response.status == 303, response.text
    location = response.headers["location"]
    shown = visitor.get(location)
    secrets = secrets_in(shown)
    assert (shown.status, bool(secrets)) == (200, case.shows), (location, shown.text)
    assert not any(secret in location for secret in secrets)
    for _ in range(2):
        reloaded = visitor.get(location)
        assert (reloaded.status, secrets_in(reloaded)) == (200, secrets)
    assert visitor.get(path).status == 200
    if case.repeatable:
        repeated = visitor.send(path, fields)
        assert (repeated.status, repeated.headers["location"]) == (303, location)
        assert secrets_in(visitor.get(location)) == secrets
    if case.action is not None:
        assert len(submitted.entries(case.action)) == len(before) + 1
    if secrets:
        another = Guest(
            server.url, {**visitor.cookies, SESSION_COOKIE: submitted.person("owner").cookies[SESSION_COOKIE]}
        )
        assert not secrets & secrets_in(another.get(location))
        hidden = visitor.post("/hide-secret", token=fields[CSRF_FIELD], next=urlsplit(location).path)
        assert (hidden.status, hidden.path, secrets_in(hidden)) == (200, urlsplit(location).path, set())
        assert not secrets & secrets_in(visitor.get(location))


def test_a_later_rotation_hides_the_old_secret(server: Server) -> None:
    account, api = server.account()
    endpoint = api.endpoint("http://127.0.0.1:9/x")["id"]
    manager, path = member(server, account, "manager"), f"/accounts/{account}/endpoints/{endpoint}/security"
    shown = manager.post(f"{path}/reveal", page=path)
    assert len(secrets_in(shown)) == 1, shown.text
    api.ok("POST", f"/v1/endpoints/{endpoint}/secret/rotate", {})
    assert secrets_in(manager.get(f"{path}?shown={endpoint}")) == set()


def test_signing_out_deletes_a_shown_secret(server: Server) -> None:
    account, api = server.account()
    endpoint = api.endpoint("http://127.0.0.1:9/x")["id"]
    manager, path = member(server, account, "manager"), f"/accounts/{account}/endpoints/{endpoint}/security"
    shown = manager.post(f"{path}/reveal", page=path)
    assert SHOWN_COOKIE in manager.cookies
    manager.post("/sign-out", token=shown.token)
    assert SHOWN_COOKIE not in manager.cookies


def test_a_secret_is_readable_by_its_session_for_five_minutes() -> None:
    cookies, session, now = SecretCookies(bytes(32)), b"s" * 32, 1_700_000_000_000
    cookie = cookies.write("ep_1", "x" * SECRET_BYTES_MAX, session, now)
    end = now + SHOWN_SECONDS * 1000

    assert len(cookie) < 4_000
    assert "x" * 20 not in cookie
    shown = cookies.read(cookie, session, end - 1)
    assert shown is not None
    assert (shown.subject, shown.secret, shown.since, shown.until) == ("ep_1", "x" * SECRET_BYTES_MAX, now, end)
    assert SHOWN_SECONDS == 300
    assert cookies.read(cookie, session, end) is None
    assert cookies.read(cookie, b"t" * 32, now) is None
    assert SecretCookies(b"k" * 32).read(cookie, session, now) is None
    for changed in ("", "!", "ü", "AAAA", cookie[:-8], cookie[:40] + "AAAA" + cookie[44:]):
        assert cookies.read(changed, session, now) is None


def test_back_forward_and_reload_in_a_browser(server: Server, page: BrowserPage) -> None:
    account, api = server.account()
    member(server, account, "owner", "olga@back.example").share_session(page)
    page.goto(f"/accounts/{account}/endpoints/new")
    page.get_by_label("URL", exact=True).fill("http://127.0.0.1:9/x")
    page.get_by_role("button", name="Create endpoint").click()
    secret = page.locator("#secret-text").inner_text()
    page.reload()
    expect(page.locator("#secret-text")).to_have_text(secret)
    check_page(page, "endpoint-created")
    page.go_back()
    expect(page.get_by_role("heading", name="Create endpoint")).to_be_visible()
    page.go_forward()
    expect(page.locator("#secret-text")).to_have_text(secret)
    assert secret not in page.url

    endpoint = api.ok("GET", "/v1/endpoints")["data"][0]["id"]
    path = f"/accounts/{account}/endpoints/{endpoint}"
    page.goto(path)
    page.get_by_role("button", name="Pause endpoint").click()
    expect(page.get_by_text("Endpoint paused.")).to_be_visible()
    page.reload()
    expect(page).to_have_url(f"{server.url}{path}")
    page.go_back()
    page.go_back()
    assert len(api.ok("GET", "/v1/endpoints")["data"]) == 1
    page.goto(f"{path}/pause")
    expect(page).to_have_url(f"{server.url}{path}")


def test_back_and_reload_after_a_rejected_form_in_a_browser(server: Server, page: BrowserPage) -> None:
    account, api = server.account()
    member(server, account, "owner", "olga@rejected.example").share_session(page)
    path = f"/accounts/{account}/endpoints/new"
    page.goto(path)
    page.get_by_label("URL", exact=True).fill("ftp://a.example")
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.locator("#url-problem")).to_be_visible()
    expect(page.get_by_label("URL", exact=True)).to_have_value("ftp://a.example")
    page.get_by_label("URL", exact=True).fill("http://127.0.0.1:9/x")
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.get_by_role("heading", name="Endpoint created")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Create endpoint")).to_be_visible()
    page.reload()
    expect(page).to_have_url(f"{server.url}{path}")
    assert len(api.ok("GET", "/v1/endpoints")["data"]) == 1


@pytest.mark.sqlite(reason="only a database file can be locked completely")
def test_a_reload_submits_a_form_again_that_an_unavailable_database_rejected(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        account, api = server.account()
        guest = member(server, account)
        assert server.place.file is not None
        with closing(sqlite3.connect(server.place.file, isolation_level=None, timeout=10)) as other:
            other.execute("BEGIN IMMEDIATE")
            response = guest.post(f"/accounts/{account}/endpoints/new", url="http://127.0.0.1:9/x")
        assert response.status == 503
        assert "To submit your input again, reload this page." in response.text
        assert "data-submitted" not in response.html
        assert api.ok("GET", "/v1/endpoints")["data"] == []


def test_a_secret_is_shown_only_in_its_account(server: Server) -> None:
    mine, theirs = server.account()[0], server.account()[0]
    guest = operator(server)
    made = guest.post(f"/accounts/{mine}/developers/keys", page=f"/accounts/{mine}/developers", follow=False, name="a")
    location = str(made.headers["location"])
    assert secrets_in(guest.get(location))
    assert not secrets_in(guest.get(location.replace(mine, theirs)))
