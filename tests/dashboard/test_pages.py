"""Every page, in a browser: without barriers, without errors, and no wider than the window."""

import pytest
from playwright.sync_api import Page as BrowserPage
from tests.dashboard import visitors
from tests.dashboard.accessibility import check_accessibility
from tests.dashboard.browsing import DESK, PHONE, OpenPage, sideways
from tests.dashboard.owned import Owned
from tests.dashboard.routes import filled
from tests.dashboard.visitors import Guest
from tests.e2e.harness import Server
from tests.e2e.receiving import Receiver

from uplift_server.dashboard.app import PAGES
from uplift_server.dashboard.routes import Door, Page

SHOWN = [
    page for page in PAGES if page.method == "GET" and page.door is not Door.ANYBODY and not page.path.endswith("/live")
]


@pytest.fixture(scope="module")
def owned(server: Server, shared_receiver: Receiver) -> Owned:
    """What the pages are about."""
    return Owned(server, shared_receiver.url("/seen"))


@pytest.fixture(scope="module")
def operator(server: Server) -> Guest:
    """Somebody who may see every page."""
    return visitors.operator(server)


@pytest.fixture(scope="module")
def owner(owned: Owned) -> Guest:
    """Whose pages they are."""
    return owned.member()


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.path)
def test_nobody_meets_a_barrier(page: Page, owned: Owned, owner: Guest, operator: Guest, open_page: OpenPage) -> None:
    visitor = operator if page.door is Door.OPERATOR else owner
    seen: BrowserPage = visitor.lend(open_page(DESK))
    answer = seen.goto(filled(page, owned.ids))

    assert answer is not None
    assert answer.status == 200
    assert sideways(seen) == 0
    check_accessibility(seen)

    # The same page with the other colours in a narrow window: what it holds is judged already.
    seen.emulate_media(color_scheme=PHONE.colours)
    seen.set_viewport_size({"width": PHONE.width, "height": 800})
    assert sideways(seen) == 0
    check_accessibility(seen, of_looks=True)
