"""All pages in a browser: accessible, without errors, and no wider than the window."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser
from playwright.sync_api import Page as BrowserPage
from tests.dashboard import visitors
from tests.dashboard.browsing import BrowserContexts, ProblemMonitor, screenshot
from tests.dashboard.full_account import FullAccount
from tests.dashboard.page_checks import check_page
from tests.dashboard.routes import parameters, path_with_ids
from tests.dashboard.visitors import Guest
from tests.e2e.harness import Server, deliveries_of, settled
from tests.e2e.receiving import Receiver, respond
from tests.rejected_events import PROBLEM, reject

from uplift_server.dashboard.app import PAGES
from uplift_server.dashboard.routes import Door, Page

GET_PAGES = [
    page
    for page in PAGES
    # tests/dashboard/test_single_sign_on.py checks the pages that need an identity provider.
    if page.method == "GET" and page.path != "/" and not page.path.endswith("/live") and "/oidc" not in page.path
]
ACCOUNT_PAGES = [page for page in GET_PAGES if page.door is Door.ACCOUNT and parameters(page) == ("account",)]
PASSWORD = "seven quiet otters swim"
LONG_TEXT = "a-long-text-without-any-place-to-break" * 6


@dataclass(frozen=True)
class Window:
    """A browser window of one person."""

    page: BrowserPage
    monitor: ProblemMonitor

    def show(self, path: str, status: int = 200) -> BrowserPage:
        """Load a page."""
        self.monitor.problems.clear()
        response = self.page.goto(path)
        assert response is not None
        assert response.status == status
        return self.page


@pytest.fixture(scope="module")
def full_account(server: Server, shared_receiver: Receiver) -> FullAccount:
    """An account with long texts and a failing endpoint."""
    path = f"/{LONG_TEXT}"
    full_account = FullAccount(server, shared_receiver.url(path))
    endpoint = f"/v1/endpoints/{full_account.ids['endpoint']}"
    full_account.api.ok("PATCH", endpoint, {"description": "<b>Ana</b> " * 20, "headers": {"X-Team": "x" * 300}})
    full_account.api.ok("POST", f"{endpoint}/secret/rotate", {})
    people, keys = f"/v1/accounts/{full_account.id}/members", f"/v1/accounts/{full_account.id}/keys"
    server.api().ok("POST", people, {"email": f"{'long' * 12}@{full_account.id[4:]}.example", "role": "member"})
    full_account.api.ok("POST", keys, {"name": LONG_TEXT[:100]})
    shared_receiver.url(path, respond(500))
    long = dict.fromkeys(("subject", "event_type", "event_id", "idempotency_key"), LONG_TEXT)
    error = {"field": LONG_TEXT, "code": "unknown_field", "message": LONG_TEXT}
    reject(server.place, full_account.id, problem={**PROBLEM, "errors": [error]}, **long)
    reject(server.place, None, problem={**PROBLEM, "errors": [], "detail": LONG_TEXT})
    full_account.ids["event"] = full_account.api.send(1).json["id"]
    [failed] = deliveries_of(full_account.api, full_account.ids["event"])
    full_account.ids["delivery"] = failed["id"]
    settled(full_account.api, failed["id"])
    return full_account


@pytest.fixture(scope="module")
def empty(server: Server) -> str:
    """An empty account."""
    return server.account("Otters")[0]


@pytest.fixture(scope="module")
def owner(server: Server, full_account: FullAccount, empty: str) -> Guest:
    """The owner of both accounts, who has a password."""
    email = f"owner@{full_account.id[4:]}.example"
    visitors.member(server, empty, "owner", email)
    full_account.member("owner").post("/you/password", page="/you", password=PASSWORD)
    guest = Guest(server.url)
    guest.post("/sign-in", email=email, password=PASSWORD)
    return guest


@pytest.fixture(scope="module")
def links(server: Server, full_account: FullAccount, owner: Guest) -> Mapping[str, str]:
    """The one-time links by path."""
    people, settings = f"/v1/accounts/{full_account.id}/members", f"/accounts/{full_account.id}/settings"
    [forgetful] = [each["id"] for each in server.api().ok("GET", people)["data"] if each["role"] == "owner"]
    response = visitors.operator(server).post(f"{settings}/members/{forgetful}/password-link", page=settings)
    passwords = re.search(r"/passwords/[\w-]+", response.text)
    assert passwords is not None, response.text
    invited = server.api().ok("POST", people, {"email": f"new@{full_account.id[4:]}.example", "role": "admin"})
    return {
        "/enter/{token}": visitors.portal_link(
            server, full_account.id, role="member", email=f"e@{full_account.id[4:]}.example"
        ),
        "/invitations/{token}": urlsplit(invited["url"]).path,
        "/passwords/{token}": passwords[0],
    }


@pytest.fixture(scope="module")
def windows(browser: Browser, server: Server, owner: Guest) -> Iterator[Mapping[Door, Window]]:
    """One window each for an operator, the owner and a visitor, because a window per page would be slow."""
    contexts = BrowserContexts(browser, server.url, "pages")
    operators, owners, strangers = (Window(contexts.open(), contexts.monitor) for _ in range(3))
    visitors.operator(server).share_session(operators.page)
    owner.share_session(owners.page)
    yield {Door.OPERATOR: operators, Door.ACCOUNT: owners, Door.VISITOR: owners, Door.ANYBODY: strangers}
    contexts.close()


@pytest.mark.parametrize("page", GET_PAGES, ids=lambda page: page.path)
def test_pages_are_accessible(
    page: Page, full_account: FullAccount, links: Mapping[str, str], windows: Mapping[Door, Window]
) -> None:
    window = windows[page.door]
    shown = window.show(links.get(page.path) or path_with_ids(page, full_account.ids))

    screenshot(shown, page.path)
    for each in shown.locator("main details").all():
        each.evaluate("each => { each.open = true }")
    # Show the content of all popovers in the page.
    shown.evaluate("document.querySelectorAll('[popover]').forEach((each) => each.removeAttribute('popover'))")
    check_page(shown, f"{page.path} open")
    assert window.monitor.problems == []


@pytest.mark.parametrize("page", ACCOUNT_PAGES, ids=lambda page: page.path)
def test_empty_pages_are_accessible(page: Page, empty: str, windows: Mapping[Door, Window]) -> None:
    window = windows[page.door]

    check_page(window.show(path_with_ids(page, {"account": empty})), f"{page.path} empty")
    assert window.monitor.problems == []


@pytest.mark.parametrize("door", [Door.ACCOUNT, Door.ANYBODY], ids=lambda door: door.name)
def test_error_pages_are_accessible(door: Door, windows: Mapping[Door, Window]) -> None:
    check_page(windows[door].show("/nowhere", status=404), f"nowhere {door.name}")
