"""Checks of a page in both themes and at both widths."""

import re
from urllib.parse import urlsplit

from playwright.sync_api import Page
from tests.dashboard.accessibility import check_accessibility
from tests.dashboard.browsing import (
    DARK_DESKTOP,
    DESKTOP,
    LIGHT_PHONE,
    PHONE,
    horizontal_overflow,
    screenshot,
    set_screen,
)

_ID = re.compile(r"\b[a-z]+_\w{20,}|/(enter|invitations|passwords)/\S+")


def check_page(page: Page, name: str | None = None) -> None:
    """Fail if a page has an accessibility violation or scrolls horizontally. Save screenshots if requested.

    `name` is the name of the screenshots, by default the path. Afterward, the page has the desktop screen.
    """
    for screen in (DESKTOP, DARK_DESKTOP, LIGHT_PHONE, PHONE):
        set_screen(page, screen)
        assert horizontal_overflow(page) == 0, f"{page.url} on {screen.name}"
        # The theme changes only colors.
        check_accessibility(page, colors_only=screen in (DARK_DESKTOP, LIGHT_PHONE))
    set_screen(page, DESKTOP)
    path = _ID.sub(lambda found: found[1] or "id", urlsplit(page.url).path)
    screenshot(page, path if name is None else name)
