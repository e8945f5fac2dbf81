"""Times on pages: each page uses one time zone, and times in lists are relative and stay current."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect
from tests.dashboard.browsing import DESKTOP, WITHOUT_SCRIPTS, OpenPage, Screen
from tests.dashboard.full_account import FullAccount
from tests.e2e.harness import Server, wait_for
from tests.e2e.receiving import Receiver

BERLIN = ZoneInfo("Europe/Berlin")
PATHS = ("overview", "endpoints/{endpoint}", "deliveries/{delivery}", "events/{event}", "settings/audit-log")


def _told(page: Page) -> list[str]:
    """Return the absolute times of a page and the titles of its charts."""
    told: list[str] = page.evaluate(
        """() => [
            ...[...document.querySelectorAll('time[title]')].map((each) => each.title),
            ...[...document.querySelectorAll('svg g title')].map((each) => each.textContent.replace(/: .*/, '')),
        ]"""
    )
    return told


@pytest.fixture(scope="module")
def full_account(server: Server, shared_receiver: Receiver) -> FullAccount:
    """An account whose charts have data."""
    full_account = FullAccount(server, shared_receiver.url("/timed"))
    api = full_account.api
    wait_for(lambda: api.ok("GET", "/v1/stats")["totals"]["deliveries"] >= 2, "the deliveries are counted")
    return full_account


@pytest.mark.parametrize("screen", [DESKTOP, WITHOUT_SCRIPTS], ids=lambda screen: screen.name)
@pytest.mark.parametrize("path", PATHS)
def test_a_page_has_one_time_zone(path: str, screen: Screen, full_account: FullAccount, open_page: OpenPage) -> None:
    page = full_account.member().share_session(open_page(screen))
    page.goto(f"/accounts/{full_account.id}/{path.format(**full_account.ids)}")
    told = _told(page)
    assert told
    if screen.scripts:
        assert not [each for each in told if "UTC" in each]
        expect(page.get_by_text("Times are in Europe/Berlin.")).to_be_visible()
    else:
        assert all(each.endswith("UTC") for each in told)
        expect(page.get_by_text("Times are in UTC.")).to_be_visible()


def test_lists_have_relative_times_with_the_local_time_on_hover(full_account: FullAccount, open_page: OpenPage) -> None:
    page = full_account.member().share_session(open_page())
    page.clock.install()
    page.goto(f"/accounts/{full_account.id}/events")
    shown = page.locator("#live time").first
    expect(shown).to_have_text(re.compile(r"^\d+ (s|min) ago$"))
    at = datetime.fromisoformat(str(shown.get_attribute("datetime"))).astimezone(BERLIN)
    expected = f"{at:%b} {at.day}, {at:%Y, %H:%M:%S} GMT+{at.utcoffset().seconds // 3600}"
    assert shown.get_attribute("title") == expected
    page.clock.fast_forward("02:00:00")
    expect(shown).to_have_text(re.compile(r"^2 h ago$"))
