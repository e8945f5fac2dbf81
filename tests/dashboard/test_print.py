"""Printed pages: landscape, without navigation, and with whole tables."""

from playwright.sync_api import expect
from tests.dashboard.browsing import OpenPage
from tests.dashboard.full_account import FullAccount
from tests.e2e.harness import Server
from tests.e2e.receiving import Receiver


def test_printed_tables_are_not_clipped(server: Server, receiver: Receiver, open_page: OpenPage) -> None:
    full_account = FullAccount(server, receiver.url("/printed/" + "long/" * 20))
    page = full_account.member().share_session(open_page())
    for path in ("overview", "endpoints", "events"):
        page.goto(f"/accounts/{full_account.id}/{path}")
        page.emulate_media(media="print")
        # A landscape A4 page without its margins.
        page.set_viewport_size({"width": 1030, "height": 700})
        expect(page.get_by_role("navigation")).to_have_count(0)
        expect(page.get_by_role("button")).to_have_count(0)
        clipped = page.evaluate(
            "[...document.querySelectorAll('.table')].filter((each) => each.scrollWidth > each.clientWidth).length"
        )
        assert clipped == 0, path
        page.emulate_media(media="screen")
