"""One server and one browser for all tests of the dashboard; every test has contexts of its own."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from tests.dashboard.browsing import Desk, OpenPage, launch
from tests.e2e.harness import Server, serving
from tests.e2e.receiving import Receiver
from tests.engines import Engine


# Not for the session: while it is there, no other event loop runs in this thread, and tests of other rooms have theirs.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, one process for all."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a short schedule, shared: every test has accounts and people of its own."""
    with serving(tmp_path_factory.mktemp("dashboard") / "data") as server:
        yield server


@pytest.fixture(scope="package")
def shared_receiver() -> Iterator[Receiver]:
    """A receiver for what a module's tests share."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A scripted receiver."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def origin(server: Server) -> str:
    """Where the pages are; requests that go anywhere else fail the test."""
    return server.url


@pytest.fixture
def desk(browser: Browser, origin: str, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """Where the test opens pages. What pages may not do fails the test at its end."""
    desk = Desk(browser, origin, request.node.name)
    yield desk
    problems = desk.leave()
    assert not problems, "\n".join(problems)


@pytest.fixture
def open_page(desk: Desk) -> OpenPage:
    """Opens a page in a context of its own, for a look."""
    return desk.open


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """A page at a desk."""
    return open_page()
