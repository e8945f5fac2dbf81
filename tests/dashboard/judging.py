"""Checks of a page on a desktop screen in light theme, and on a phone in dark theme."""

import re
from urllib.parse import urlsplit

from playwright.sync_api import Page
from tests.dashboard.accessibility import check_accessibility
from tests.dashboard.browsing import DESK, PHONE, put_on, screenshot, sideways

_ID = re.compile(r"\b[a-z]+_\w{20,}|/(enter|invitations|passwords)/\S+")


def judge(page: Page, name: str | None = None) -> None:
    """Fail if a page has an accessibility violation or scrolls sideways. Save screenshots if requested.

    `name` is the name of the screenshots, by default the path. The page starts and ends on the desktop screen. On the
    phone, only the rules about colors and sizes run, because the content is the same.
    """
    put_on(page, DESK)
    assert sideways(page) == 0, page.url
    check_accessibility(page)
    put_on(page, PHONE)
    assert sideways(page) == 0, f"{page.url} on a phone"
    check_accessibility(page, of_looks=True)
    put_on(page, DESK)
    path = _ID.sub(lambda found: found[1] or "id", urlsplit(page.url).path)
    screenshot(page, path if name is None else name)
