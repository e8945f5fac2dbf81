"""Checks of a page on a desktop screen in light theme, and on a phone in dark theme."""

import re
from urllib.parse import urlsplit

from playwright.sync_api import Page
from tests.dashboard.accessibility import check_accessibility
from tests.dashboard.browsing import DESKTOP, PHONE, horizontal_overflow, screenshot, set_screen

_ID = re.compile(r"\b[a-z]+_\w{20,}|/(enter|invitations|passwords)/\S+")


def check_page(page: Page, name: str | None = None) -> None:
    """Fail if a page has an accessibility violation or scrolls horizontally. Save screenshots if requested.

    `name` is the name of the screenshots, by default the path. The page starts and ends on the desktop screen. On the
    phone, only the rules about colors and sizes run, because the content is the same.
    """
    set_screen(page, DESKTOP)
    assert horizontal_overflow(page) == 0, page.url
    check_accessibility(page)
    set_screen(page, PHONE)
    assert horizontal_overflow(page) == 0, f"{page.url} on a phone"
    check_accessibility(page, visual_only=True)
    set_screen(page, DESKTOP)
    path = _ID.sub(lambda found: found[1] or "id", urlsplit(page.url).path)
    screenshot(page, path if name is None else name)
