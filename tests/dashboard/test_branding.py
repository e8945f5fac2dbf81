"""The operator's brand: name, logo and colors."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from playwright.sync_api import Browser, expect
from tests.dashboard.browsing import DARK_DESKTOP, BrowserContexts, set_screen
from tests.dashboard.page_checks import check_page
from tests.dashboard.visitors import Guest, member, open_overview
from tests.e2e.harness import Server, serving
from tests.engines import Engine

LOGO = """<svg xmlns="http://www.w3.org/2000/svg" width="80" height="20">
<script>alert(1)</script><rect width="80" height="20"/></svg>"""


@pytest.fixture
def branded(engine: Engine, tmp_path: Path) -> Iterator[Server]:
    """A server with its own brand."""
    logo = tmp_path / "logo.svg"
    logo.write_text(LOGO)
    brand = {
        "UPLIFT_BRAND_NAME": "Rapids <Hooks>",
        "UPLIFT_BRAND_LOGO_FILE": str(logo),
        "UPLIFT_BRAND_COLORS": "accent=#7a1fa2 accent-dark=#d9a3f0",
    }
    with serving(tmp_path / "data", **brand) as server:
        yield server


def test_pages_have_the_brand_and_stay_accessible(branded: Server, browser: Browser) -> None:
    account, _ = branded.account()
    contexts = BrowserContexts(browser, branded.url, "branded")
    page = contexts.open()
    open_overview(page, member(branded, account))
    page.goto(f"/accounts/{account}/overview")
    expect(page).to_have_title("Overview · Rapids Academy · Rapids <Hooks>")
    logo = page.get_by_role("img", name="Rapids <Hooks>")
    expect(logo).to_be_visible()
    assert logo.evaluate("each => each.naturalWidth") == 80
    start = page.locator("a.primary", has_text="Get started")
    expect(start).to_have_css("background-color", "rgb(122, 31, 162)")
    set_screen(page, DARK_DESKTOP)
    expect(start).to_have_css("background-color", "rgb(217, 163, 240)")
    check_page(page)
    assert contexts.close() == []


def test_a_frame_has_no_brand(branded: Server) -> None:
    page = Guest(branded.url)
    assert "<img" in page.get("/sign-in").html
    assert "<img" not in page.get("/sign-in", sec_fetch_dest="iframe").html
    assert "<h1>Sign in</h1>" in page.get("/sign-in", sec_fetch_dest="iframe").html


def test_servers_without_a_brand_have_no_brand_files(server: Server) -> None:
    for name in ("brand.css", "brand-logo"):
        assert urllib3.request("GET", f"{server.url}/assets/{name}").status == 404
    assert "brand.css" not in Guest(server.url).get("/sign-in").html
