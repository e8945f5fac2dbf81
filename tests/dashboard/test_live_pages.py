"""Live pages: they update, and keep focus, selection and open details."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from tests.dashboard.browsing import BrowserContexts, OpenPage
from tests.dashboard.visitors import member, open_overview
from tests.e2e import receiving
from tests.e2e.harness import TYPE, Server, serving, settled, wait_for
from tests.e2e.receiving import Receiver
from tests.engines import Engine


def count_changes(page: Page) -> int:
    """Return the number of changes that a page received since the first call."""
    page.evaluate(
        """window.changeCount ?? (
            window.changeCount = 0, document.addEventListener("sse:change", () => { window.changeCount += 1 })
        )"""
    )
    count: int = page.evaluate("window.changeCount")
    return count


def test_the_focus_stays_when_the_list_grows(server: Server, open_page: OpenPage) -> None:
    account, api = server.account()
    first = api.send(1).json["id"]
    page = open_page()
    open_overview(page, member(server, account))
    page.goto(f"/accounts/{account}/events")
    link = page.locator(f'#live a[href$="/events/{first}"]')
    link.focus()
    second = api.send(2).json["id"]
    expect(page.locator(f'#live a[href$="/events/{second}"]')).to_be_visible()
    expect(link).to_be_focused()
    page.get_by_role("button", name=f"Copy {first}").click()
    third = api.send(3).json["id"]
    expect(page.locator(f'#live a[href$="/events/{third}"]')).to_be_visible()
    expect(page.get_by_role("button", name=f"Copy {first}")).to_be_focused()


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
    # The delayed statistics of the registration event would hide a missed change.
    wait_for(lambda: api.ok("GET", "/v1/stats")["totals"]["deliveries"], "the registration event is counted")

    def continue_late(route: Route) -> None:
        api.ok("PATCH", f"/v1/endpoints/{endpoint}", {"description": "Changed after the page was made"})
        time.sleep(1.2)
        route.continue_()

    page.route("**/htmx-ext-sse*.js*", continue_late)
    page.goto(f"/accounts/{account}/endpoints")
    expect(page.get_by_text("Changed after the page was made")).to_be_visible(timeout=10_000)


@pytest.fixture
def own_server(engine: Engine, tmp_path: Path) -> Iterator[Server]:
    """A server that the test can stop."""
    with serving(tmp_path / "data") as server:
        yield server


def test_a_page_shows_missed_changes_after_a_server_restart(own_server: Server, browser: Browser) -> None:
    """A new stream reports only later changes, so the page must reload after a reconnect."""
    account, _ = own_server.account()
    contexts = BrowserContexts(browser, own_server.url, "away")
    page = contexts.open()
    open_overview(page, member(own_server, account))
    with page.expect_response(lambda response: response.url.endswith("/live")):
        page.goto(f"/accounts/{account}/events")
    own_server.kill()
    own_server.start()
    # The server accepts this event before the browser reconnects.
    missed = own_server.api(account=account).send(2).json["id"]
    expect(page.locator(f'#live a[href$="/events/{missed}"]')).to_be_visible(timeout=15_000)
    contexts.close()
