"""Every page, in a browser: without barriers, without errors, and no wider than the window."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser
from playwright.sync_api import Page as BrowserPage
from tests.dashboard import visitors
from tests.dashboard.accessibility import check_accessibility
from tests.dashboard.browsing import DESK, PHONE, Desk, Look, Watch, screenshot, sideways
from tests.dashboard.owned import Owned
from tests.dashboard.routes import filled
from tests.e2e.harness import Server
from tests.e2e.receiving import Receiver

from uplift_server.dashboard.app import PAGES
from uplift_server.dashboard.routes import Door, Page

SHOWN = [
    page for page in PAGES if page.method == "GET" and page.door is not Door.ANYBODY and not page.path.endswith("/live")
]


@dataclass(frozen=True)
class Window:
    """Where somebody goes from page to page, and what pages did there that they may not."""

    page: BrowserPage
    watch: Watch

    def look(self, look: Look) -> None:
        """Change the screen."""
        self.page.emulate_media(color_scheme=look.colours)
        self.page.set_viewport_size({"width": look.width, "height": 800})


@pytest.fixture(scope="module")
def owned(server: Server, shared_receiver: Receiver) -> Owned:
    """What the pages are about."""
    return Owned(server, shared_receiver.url("/seen"))


@pytest.fixture(scope="module")
def windows(browser: Browser, server: Server, owned: Owned) -> Iterator[Mapping[bool, Window]]:
    """One window of an operator and one of the owner: one for every page would take longer than the page."""
    desk = Desk(browser, server.url, "pages")
    windows = {True: Window(desk.open(), desk.watch), False: Window(desk.open(), desk.watch)}
    visitors.operator(server).lend(windows[True].page)
    owned.member().lend(windows[False].page)
    yield windows
    desk.leave()


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.path)
def test_nobody_meets_a_barrier(page: Page, owned: Owned, windows: Mapping[bool, Window]) -> None:
    window = windows[page.door is Door.OPERATOR]
    window.watch.problems.clear()
    window.look(DESK)
    answer = window.page.goto(filled(page, owned.ids))

    assert answer is not None
    assert answer.status == 200
    assert sideways(window.page) == 0
    check_accessibility(window.page)

    # The same page with the other colours in a narrow window: what it holds is judged already.
    window.look(PHONE)
    assert sideways(window.page) == 0
    check_accessibility(window.page, of_looks=True)
    screenshot(window.page, page.path)
    assert window.watch.problems == []
