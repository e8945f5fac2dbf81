"""One server and one browser for all tests of the dashboard. Each test has its own contexts."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from tests.dashboard.browsing import BrowserContexts, OpenPage, launch
from tests.dashboard.form_cases import Forms
from tests.e2e.harness import Server, serving
from tests.e2e.receiving import Receiver
from tests.engines import Engine


# Package scope, because Playwright blocks other event loops in this thread, and other tests need them.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One Chromium process for all tests."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A shared server with a short retry schedule. Each test creates its own accounts."""
    with serving(tmp_path_factory.mktemp("dashboard") / "data") as server:
        yield server


@pytest.fixture(scope="package")
def shared_receiver() -> Iterator[Receiver]:
    """A receiver for accounts that several tests share."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="package")
def submitted(server: Server, shared_receiver: Receiver) -> Forms:
    """The people who submit the forms of the dashboard, and the objects that the forms need."""
    return Forms(server, shared_receiver)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A scripted receiver."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def origin(server: Server) -> str:
    """The only origin that pages can request."""
    return server.url


@pytest.fixture
def contexts(browser: Browser, origin: str, request: pytest.FixtureRequest) -> Iterator[BrowserContexts]:
    """Browser contexts that fail the test after an error or a forbidden request of a page."""
    contexts = BrowserContexts(browser, origin, request.node.name)
    yield contexts
    problems = contexts.close()
    assert not problems, "\n".join(problems)


@pytest.fixture
def open_page(contexts: BrowserContexts) -> OpenPage:
    """Return a function that opens a page in its own context."""
    return contexts.open


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """A page on a desktop screen."""
    return open_page()
