"""Screenshots of the pages that an operator opens on a bad morning."""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright
from tests.dashboard.browsing import DARK_DESKTOP, DESKTOP, HEIGHT, PHONE, launch, set_screen

from .building import Morning, World, fleet_with_problem

SCREENS: Final = (PHONE, DARK_DESKTOP, DESKTOP)


def pages(world: World) -> dict[str, str]:
    """Return the paths of the pages by name: Fleet, the failing endpoints, and the overview of an affected account."""
    account = world.accounts[next((number for number, each in world.endpoints if each in world.broken), 0)]
    return {
        "fleet": "/operator",
        "endpoints": "/operator/endpoints?filter=failing",
        "overview": f"/accounts/{account}/overview",
    }


def take(world: World, morning: Morning, directory: Path) -> None:
    """Wait until Fleet shows the problem, and save a screenshot of each page for each of SCREENS."""
    fleet_with_problem(world, morning.expected)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_context(
            base_url=world.server.url, viewport={"width": DESKTOP.width, "height": HEIGHT}, timezone_id="UTC"
        ).new_page()
        link = world.server.api().ok("POST", "/v1/sign-in-links")["url"]
        page.goto(urlsplit(link).path)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/operator**")
        for title, path in pages(world).items():
            page.goto(path)
            page.wait_for_timeout(1_000)
            for screen in SCREENS:
                set_screen(page, screen)
                page.screenshot(
                    path=directory / f"{morning.name}-{title}-{screen.name}.png", full_page=True, animations="disabled"
                )
        browser.close()
