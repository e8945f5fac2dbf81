"""Endpoints in a browser: create, test, pause, enable and delete."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect
from tests.dashboard.browsing import DESKTOP, WITHOUT_SCRIPTS, OpenPage, Screen
from tests.dashboard.page_checks import check_page
from tests.e2e.harness import Server
from tests.e2e.receiving import Receiver, respond


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on a real socket."""
    receiver = Receiver()
    yield receiver
    receiver.close()


def enter(page: Page, server: Server, account: str) -> None:
    """Sign in as the owner with a portal link."""
    wanted = {"role": "owner", "email": f"owner@{account.removeprefix('acc_')}.example"}
    link = server.api().ok("POST", f"/v1/accounts/{account}/portal-links", wanted)["url"]
    page.goto(urlsplit(link).path)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile(account))


@pytest.mark.parametrize("screen", [DESKTOP, WITHOUT_SCRIPTS], ids=lambda screen: screen.name)
def test_an_owner_creates_tests_pauses_and_deletes_an_endpoint(
    server: Server, receiver: Receiver, open_page: OpenPage, screen: Screen
) -> None:
    account, _ = server.account()
    page = open_page(screen)
    enter(page, server, account)
    page.goto(f"/accounts/{account}/endpoints")
    page.get_by_role("link", name="Create endpoint").first.click()
    page.get_by_label("URL", exact=True).fill("ftp://example.com")
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.locator("#url-problem")).to_contain_text("http")
    page.get_by_label("URL", exact=True).fill(receiver.url("/hook"))
    page.get_by_label("athlete.created").check()
    page.get_by_role("button", name="Create endpoint").click()

    expect(page.get_by_role("heading", name="Secret")).to_be_visible()
    secret = page.locator("#secret-text").inner_text()
    assert secret.startswith("whsec_")
    if screen.scripts:
        page.get_by_role("button", name="Copy secret", exact=True).click()
        assert page.evaluate("navigator.clipboard.readText()") == secret

    page.get_by_role("link", name="Send test event").click()
    page.get_by_role("button", name="Send test event").click()
    expect(page.get_by_text("Your server responded with 200.")).to_be_visible()
    if screen.scripts:
        check_page(page)
    page.get_by_role("link", name="Security").click()
    page.get_by_role("button", name="Reveal secret").click()
    expect(page.locator(".secret").first).to_have_text(secret)

    page.get_by_role("navigation", name="Endpoint").get_by_role("link", name="Deliveries").click()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("heading", name="Paused")).to_be_visible()
    page.get_by_role("button", name="Enable endpoint").click()
    page.get_by_label("Drop the held deliveries").check()
    page.locator(":popover-open").get_by_role("button", name="Enable").click()
    expect(page.get_by_text("The server cancels the held deliveries")).to_be_visible()

    page.get_by_role("link", name="Subscription").click()
    page.get_by_role("button", name="Delete endpoint").click()
    page.locator(":popover-open").get_by_role("button", name="Delete endpoint").click()
    expect(page.get_by_text("No endpoints yet")).to_be_visible()


def test_the_page_updates_when_the_endpoint_fails(server: Server, receiver: Receiver, page: Page) -> None:
    account, api = server.account()
    made = api.endpoint(receiver.url("/live", respond(500)))
    enter(page, server, account)
    page.goto(f"/accounts/{account}/endpoints/{made['id']}")
    expect(page.get_by_role("heading", name="No attempts yet")).to_be_visible()
    api.send(1)
    expect(page.get_by_role("heading", name="Failing")).to_be_visible()
    expect(page.get_by_text("500: it failed").first).to_be_visible()
    # Statistics follow with a short delay.
    expect(page.locator(".figure").first).to_contain_text("2 failed")
