"""All pages in a browser: accessible, without errors, and no wider than the window."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser
from playwright.sync_api import Page as BrowserPage
from tests.dashboard import visitors
from tests.dashboard.browsing import Desk, Watch, screenshot
from tests.dashboard.judging import judge
from tests.dashboard.owned import Owned
from tests.dashboard.routes import filled, parameters
from tests.dashboard.visitors import Guest
from tests.e2e.harness import Server, deliveries_of, settled
from tests.e2e.receiving import Receiver, answer

from uplift_server.dashboard.app import PAGES
from uplift_server.dashboard.routes import Door, Page

SHOWN = [page for page in PAGES if page.method == "GET" and page.path != "/" and not page.path.endswith("/live")]
OF_AN_ACCOUNT = [page for page in SHOWN if page.door is Door.ACCOUNT and parameters(page) == ("account",)]
PASSWORD = "seven quiet otters swim"
LONG = "a-long-text-without-any-place-to-break" * 6


@dataclass(frozen=True)
class Window:
    """A browser window of one person."""

    page: BrowserPage
    watch: Watch

    def show(self, path: str, status: int = 200) -> BrowserPage:
        """Load a page."""
        self.watch.problems.clear()
        answer = self.page.goto(path)
        assert answer is not None
        assert answer.status == status
        return self.page


@pytest.fixture(scope="module")
def owned(server: Server, shared_receiver: Receiver) -> Owned:
    """An account with long texts and a failing endpoint."""
    path = f"/{LONG}"
    owned = Owned(server, shared_receiver.url(path))
    endpoint = f"/v1/endpoints/{owned.ids['endpoint']}"
    owned.api.ok("PATCH", endpoint, {"description": "<b>Ana</b> " * 20, "headers": {"X-Team": "x" * 300}})
    owned.api.ok("POST", f"{endpoint}/secret/rotate", {})
    people, keys = f"/v1/accounts/{owned.id}/members", f"/v1/accounts/{owned.id}/keys"
    server.api().ok("POST", people, {"email": f"{'long' * 12}@{owned.id[4:]}.example", "role": "member"})
    owned.api.ok("POST", keys, {"name": LONG[:100]})
    shared_receiver.url(path, answer(500))
    owned.ids["event"] = owned.api.send(1).json["id"]
    [failed] = deliveries_of(owned.api, owned.ids["event"])
    owned.ids["delivery"] = failed["id"]
    settled(owned.api, failed["id"])
    return owned


@pytest.fixture(scope="module")
def empty(server: Server) -> str:
    """An empty account."""
    return server.account("Otters")[0]


@pytest.fixture(scope="module")
def owner(server: Server, owned: Owned, empty: str) -> Guest:
    """The owner of both accounts, who has a password."""
    email = f"owner@{owned.id[4:]}.example"
    visitors.member(server, empty, "owner", email)
    owned.member("owner").post("/you/password", page="/you", password=PASSWORD)
    guest = Guest(server.url)
    guest.post("/sign-in", email=email, password=PASSWORD)
    return guest


@pytest.fixture(scope="module")
def links(server: Server, owned: Owned, owner: Guest) -> Mapping[str, str]:
    """The one-time links by path."""
    people, settings = f"/v1/accounts/{owned.id}/members", f"/accounts/{owned.id}/settings"
    [forgetful] = [each["id"] for each in server.api().ok("GET", people)["data"] if each["role"] == "owner"]
    told = visitors.operator(server).post(f"{settings}/members/{forgetful}/password-link", page=settings)
    passwords = re.search(r"/passwords/[\w-]+", told.text)
    assert passwords is not None, told.text
    invited = server.api().ok("POST", people, {"email": f"new@{owned.id[4:]}.example", "role": "admin"})
    return {
        "/enter/{token}": visitors.portal_link(server, owned.id, role="member", email=f"e@{owned.id[4:]}.example"),
        "/invitations/{token}": urlsplit(invited["url"]).path,
        "/passwords/{token}": passwords[0],
    }


@pytest.fixture(scope="module")
def windows(browser: Browser, server: Server, owner: Guest) -> Iterator[Mapping[Door, Window]]:
    """One window each for an operator, the owner and a visitor, because a window per page would be slow."""
    desk = Desk(browser, server.url, "pages")
    operators, owners, strangers = (Window(desk.open(), desk.watch) for _ in range(3))
    visitors.operator(server).lend(operators.page)
    owner.lend(owners.page)
    yield {Door.OPERATOR: operators, Door.ACCOUNT: owners, Door.VISITOR: owners, Door.ANYBODY: strangers}
    desk.leave()


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.path)
def test_pages_are_accessible(
    page: Page, owned: Owned, links: Mapping[str, str], windows: Mapping[Door, Window]
) -> None:
    window = windows[page.door]
    shown = window.show(links.get(page.path) or filled(page, owned.ids))

    screenshot(shown, page.path)
    for each in shown.locator("main details").all():
        each.evaluate("each => { each.open = true }")
    judge(shown, f"{page.path} open")
    assert window.watch.problems == []


@pytest.mark.parametrize("page", OF_AN_ACCOUNT, ids=lambda page: page.path)
def test_empty_pages_are_accessible(page: Page, empty: str, windows: Mapping[Door, Window]) -> None:
    window = windows[page.door]

    judge(window.show(filled(page, {"account": empty})), f"{page.path} empty")
    assert window.watch.problems == []


@pytest.mark.parametrize("door", [Door.ACCOUNT, Door.ANYBODY], ids=lambda door: door.name)
def test_error_pages_are_accessible(door: Door, windows: Mapping[Door, Window]) -> None:
    judge(windows[door].show("/nowhere", status=404), f"nowhere {door.name}")
