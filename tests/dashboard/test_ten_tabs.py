"""Ten live tabs of one browser share one stream per account and stay responsive."""

import time

import pytest
from playwright.sync_api import BrowserContext, Page, Request, expect
from tests.dashboard import visitors
from tests.dashboard.browsing import OpenPage
from tests.e2e.harness import Server, wait_for

# Headless tabs are always visible, so the test sets what the browser would report.
HIDE = """(hidden) => {
    Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
    document.dispatchEvent(new Event('visibilitychange'));
}"""


class Streams:
    """The open streams of a browser context."""

    def __init__(self, context: BrowserContext) -> None:
        self._tabs: dict[Request, Page] = {}
        context.on("request", self._add)
        for event in ("requestfinished", "requestfailed"):
            context.on(event, lambda request: self._tabs.pop(request, None))

    def _add(self, request: Request) -> None:
        if request.url.endswith("/live"):
            self._tabs[request] = request.frame.page

    @property
    def tabs(self) -> list[Page]:
        """The open tabs with a stream. A closed tab does not report the end of its requests."""
        return [tab for tab in self._tabs.values() if not tab.is_closed()]


@pytest.fixture
def ten(server: Server, open_page: OpenPage) -> tuple[str, list[Page], Streams]:
    """Ten live tabs of an account in one browser."""
    account, api = server.account()
    api.send(1)
    first = open_page()
    streams = Streams(first.context)
    visitors.member(server, account).share_session(first)
    tabs = [first, *(first.context.new_page() for _ in range(9))]
    for number, tab in enumerate(tabs):
        tab.goto(f"/accounts/{account}/{('events', 'overview', 'endpoints', 'replays')[number % 4]}")
    return account, tabs, streams


def test_ten_live_tabs_stay_responsive_and_share_a_stream(server: Server, ten: tuple[str, list[Page], Streams]) -> None:
    account, tabs, streams = ten
    for tab in tabs:
        expect(tab.locator("#live-state")).to_have_text("Live")
    assert len(streams.tabs) == 1

    began = time.monotonic()
    eleventh = tabs[0].context.new_page()
    eleventh.goto(f"/accounts/{account}/settings")
    assert time.monotonic() - began < 5
    event = server.api(account=account).send(2).json["id"]
    for tab in tabs[::4]:
        expect(tab.locator(f'#live a[href$="/events/{event}"]')).to_be_visible()
    assert len(streams.tabs) == 1


def test_another_tab_takes_over_the_stream(server: Server, ten: tuple[str, list[Page], Streams]) -> None:
    account, tabs, streams = ten
    [leader] = streams.tabs
    leader.close()
    last = next(tab for tab in reversed(tabs) if tab is not leader and "/events" in tab.url)
    wait_for(lambda: last.evaluate("1") and len(streams.tabs) == 1, "a new stream")
    event = server.api(account=account).send(2).json["id"]
    expect(last.locator(f'#live a[href$="/events/{event}"]')).to_be_visible()


def test_tabs_in_the_background_have_no_stream(server: Server, ten: tuple[str, list[Page], Streams]) -> None:
    account, tabs, streams = ten
    for tab in tabs:
        tab.evaluate(HIDE, True)
    wait_for(lambda: tabs[0].evaluate("1") and not streams.tabs, "all streams end")
    event = server.api(account=account).send(2).json["id"]
    tabs[0].evaluate(HIDE, False)
    expect(tabs[0].locator(f'#live a[href$="/events/{event}"]')).to_be_visible()
    assert len(streams.tabs) == 1
