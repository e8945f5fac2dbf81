"""Live pages: they update, and wait while the visitor uses them."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect
from tests.dashboard.browsing import BrowserContexts, OpenPage
from tests.dashboard.visitors import member, open_overview
from tests.e2e import receiving
from tests.e2e.harness import TYPE, Api, Server, serving, settled, wait_for
from tests.e2e.receiving import Receiver
from tests.engines import Engine


def count_changes(page: Page) -> int:
    """Return the number of changes that a page received since the first call."""
    page.evaluate(
        """window.changeCount ?? (
            window.changeCount = 0, document.addEventListener("live:change", () => { window.changeCount += 1 })
        )"""
    )
    count: int = page.evaluate("window.changeCount")
    return count


def _events(server: Server, open_page: OpenPage) -> tuple[Page, Api, Locator]:
    """Open the event list of an account with one event. Return the page, an API client, and the link to the event."""
    account, api = server.account()
    first = api.send(1).json["id"]
    page = open_page()
    open_overview(page, member(server, account))
    page.goto(f"/accounts/{account}/events")
    expect(page.locator("#live-state")).to_have_text("Live")
    page.mouse.move(600, 5)
    return page, api, page.locator(f'#live a[href$="/events/{first}"]')


def test_a_list_waits_while_the_focus_is_inside_and_says_how_many_rows_are_new(
    server: Server, open_page: OpenPage
) -> None:
    page, api, link = _events(server, open_page)
    link.focus()
    added = [api.send(number).json["id"] for number in (2, 3)]
    expect(page.get_by_role("button", name="2 new", exact=True)).to_be_visible()
    expect(page.locator("#live tbody tr")).to_have_count(1)
    page.get_by_role("button", name="2 new", exact=True).click()
    for each in added:
        expect(page.locator(f'#live a[href$="/events/{each}"]')).to_be_visible()
    expect(page.get_by_role("button", name="2 new")).to_be_hidden()


def test_a_list_waits_while_the_pointer_is_inside_and_updates_when_it_leaves(
    server: Server, open_page: OpenPage
) -> None:
    page, api, link = _events(server, open_page)
    link.hover()
    added = api.send(2).json["id"]
    expect(page.get_by_role("button", name="1 new", exact=True)).to_be_visible()
    expect(page.locator("#live tbody tr")).to_have_count(1)
    page.mouse.move(600, 5)
    expect(page.locator(f'#live a[href$="/events/{added}"]')).to_be_visible()
    expect(page.get_by_role("button", name="1 new")).to_be_hidden()


def test_figures_update_while_a_list_waits(server: Server, receiver: Receiver, open_page: OpenPage) -> None:
    account, api = server.account()
    api.endpoint(receiver.url("/hook"))
    wait_for(lambda: api.ok("GET", "/v1/stats")["totals"]["deliveries"], "the registration event is counted")
    page = open_page()
    open_overview(page, member(server, account))
    page.locator("#live .table.cards a").first.focus()
    shown = page.locator(".figure", has=page.get_by_text("Deliveries", exact=True)).locator("dd")
    expect(shown).to_have_text(re.compile("^1"))
    api.send(1)
    expect(shown).to_have_text(re.compile("^2"))
    expect(page.get_by_role("button", name="1 new")).to_be_visible()


def test_open_details_stay_open_and_the_page_updates_later(
    server: Server, receiver: Receiver, open_page: OpenPage
) -> None:
    account, api = server.account()
    api.endpoint(receiver.url("/down", receiving.respond(500)), event_types=[TYPE])
    [found] = api.ok("GET", f"/v1/events/{api.send(1).json['id']}/deliveries")["data"]
    delivery = found["id"]
    assert settled(api, delivery)["status"] == "failed"
    page = open_page()
    open_overview(page, member(server, account))
    page.goto(f"/accounts/{account}/deliveries/{delivery}")
    request = page.locator("#attempt-5 details").first
    request.locator("summary").click()
    expect(request.get_by_text("webhook-signature")).to_be_visible()
    before = count_changes(page)
    receiver.url("/down", receiving.respond())
    api.ok("POST", f"/v1/deliveries/{delivery}/resend")
    wait_for(lambda: count_changes(page) > before, "the page receives a change", every=0.1)
    assert settled(api, delivery)["status"] == "delivered"
    expect(request.get_by_text("webhook-signature")).to_be_visible()
    expect(page.get_by_text("Delivered, 200")).to_have_count(0)
    request.locator("summary").click()
    expect(page.get_by_text("Delivered, 200")).to_be_visible()


def test_a_page_with_slow_scripts_shows_missed_changes(server: Server, receiver: Receiver, open_page: OpenPage) -> None:
    account, api = server.account()
    endpoint = api.endpoint(receiver.url("/hook"))["id"]
    page = open_page()
    open_overview(page, member(server, account))
    # Wait for the statistics of the registration event: a later update would hide a missed change.
    wait_for(lambda: api.ok("GET", "/v1/stats")["totals"]["deliveries"], "the registration event is counted")

    def continue_late(route: Route) -> None:
        api.ok("PATCH", f"/v1/endpoints/{endpoint}", {"description": "Changed after the page was made"})
        time.sleep(1.2)
        route.continue_()

    page.route("**/live*.js*", continue_late)
    page.goto(f"/accounts/{account}/endpoints")
    expect(page.get_by_text("Changed after the page was made")).to_be_visible(timeout=10_000)


def test_a_page_that_shows_a_pending_delivery_updates_when_its_stream_opens(
    server: Server, receiver: Receiver, open_page: OpenPage
) -> None:
    """The delivery can end after the server created the page, and before the stream opens."""
    account, api = server.account()
    api.endpoint(receiver.url("/down", receiving.respond(500)), event_types=[TYPE], retry_schedule=["1h"])
    event = api.send(1).json["id"]
    wait_for(lambda: api.ok("GET", "/v1/stats")["totals"]["attempts"], "the first attempt is counted")
    page = open_page()
    open_overview(page, member(server, account))
    with page.expect_request(lambda request: "hx-request" in request.headers):
        page.goto(f"/accounts/{account}/events/{event}")
        expect(page.locator("#live tbody .status.pending")).to_be_visible()


@pytest.fixture
def own_server(engine: Engine, tmp_path: Path) -> Iterator[Server]:
    """A server that the test can stop."""
    with serving(tmp_path / "data") as server:
        yield server


def test_a_lost_stream_says_so_and_recovers(own_server: Server, browser: Browser) -> None:
    """A new stream reports only later changes, so the page must reload after a reconnect."""
    account, _ = own_server.account()
    contexts = BrowserContexts(browser, own_server.url, "away")
    page = contexts.open()
    open_overview(page, member(own_server, account))
    with page.expect_response(lambda response: response.url.endswith("/live")):
        page.goto(f"/accounts/{account}/events")
    state = page.locator("#live-state")
    expect(state).to_have_text("Live")
    own_server.kill()
    expect(state).to_have_text("Connection lost. Reconnecting…")
    own_server.start()
    # The server accepts this event before the browser reconnects.
    missed = own_server.api(account=account).send(2).json["id"]
    expect(page.locator(f'#live a[href$="/events/{missed}"]')).to_be_visible(timeout=15_000)
    expect(state).to_have_text("Live")
    contexts.close()


def test_a_page_that_cannot_be_updated_says_so_and_recovers(server: Server, browser: Browser) -> None:
    contexts = BrowserContexts(browser, server.url, "stale")
    page, api, _ = _events(server, contexts.open)
    path = re.compile("/events$")
    page.route(path, lambda route: route.fulfill(status=503, body="The database is not available."))
    added = api.send(2).json["id"]
    state = page.locator("#live-state")
    expect(state).to_have_text("Not up to date. Updating again…")
    page.unroute(path)
    expect(page.locator(f'#live a[href$="/events/{added}"]')).to_be_visible()
    expect(state).to_have_text("Live")
    contexts.close()


def test_a_page_says_that_the_visitor_is_signed_out(server: Server, browser: Browser) -> None:
    account, api = server.account()
    contexts = BrowserContexts(browser, server.url, "signed out")
    page = contexts.open()
    guest = member(server, account)
    open_overview(page, guest)
    page.goto(f"/accounts/{account}/events")
    expect(page.locator("#live-state")).to_have_text("Live")
    guest.post("/sign-out", page="/")
    api.send(1)
    expect(page.locator("#live-state")).to_have_text("You are signed out. Sign in")
    expect(page.get_by_role("heading", name="Events", exact=True)).to_be_visible()
    contexts.close()
