"""Pages in the system's Chromium, and a record of their errors and forbidden requests."""

import os
import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request, Response, expect

WAIT_MS = 30_000
"""How long a page may take to show a change.

In a busy process, statistics are up to 10 seconds late, and the page reloads up to 10 seconds later.
"""
HEIGHT = 800
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""Programs to use, best first. The headless shell takes a quarter less CPU time than the whole browser."""
SCREENSHOTS = "DASHBOARD_SCREENSHOTS"
"""Environment variable with a directory for screenshots of all checked pages."""

# Log the details of Content-Security-Policy violations, which the browser's own message omits.
LOG_VIOLATIONS = """document.addEventListener('securitypolicyviolation', (event) => console.error(
    `Content-Security-Policy: ${event.effectiveDirective} forbids ${event.blockedURI || 'inline'}`
    + ` at ${event.sourceFile}:${event.lineNumber} ${event.sample}`))"""
# Messages to ignore: the browser repeats the status of a response.
EXPECTED_MESSAGES = re.compile(r"^Failed to load resource: the server responded with a status of \d+")


@dataclass(frozen=True)
class Screen:
    """Settings of a screen."""

    name: str
    width: int
    color_scheme: Literal["light", "dark"]
    scripts: bool = True


DESKTOP = Screen("desk", 1280, "light")
DARK_DESKTOP = Screen("night", 1280, "dark")
PHONE = Screen("phone", 360, "dark")
LIGHT_PHONE = Screen("light-phone", 360, "light")
WITHOUT_SCRIPTS = Screen("without-scripts", 1280, "light", scripts=False)
SCREENS = (DESKTOP, PHONE)
"""Two screens that cover both widths and both themes."""
SCREENSHOT_SCREENS = (PHONE, DARK_DESKTOP, DESKTOP)
"""Screens of the screenshots. The last one stays active."""


def launch(playwright: Playwright) -> Browser:
    """Launch the system's Chromium. Fail if it is missing."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.fail(
            "Chromium is not on this machine. Install it (Debian: apt-get install -y chromium-headless-shell)",
            pytrace=False,
        )
    expect.set_options(timeout=WAIT_MS)
    return playwright.chromium.launch(executable_path=found)


@dataclass
class ProblemMonitor:
    """Errors and forbidden requests of pages of one origin."""

    origin: str
    problems: list[str] = field(default_factory=list)

    def attach(self, context: BrowserContext) -> None:
        """Watch a browser context."""
        context.add_init_script(LOG_VIOLATIONS)
        context.on("console", self._console)
        context.on("weberror", lambda error: self.problems.append(f"error of a script: {error.error}"))
        context.on("request", self._request)
        context.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not EXPECTED_MESSAGES.match(message.text):
            self.problems.append(f"console of {message.page.url if message.page else '?'}: {message.text}")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme != "data" and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.problems.append(f"a request to another origin: {request.url}")

    def _response(self, response: Response) -> None:
        # The test checks the page's own status. Its assets must exist.
        is_checked_by_test = response.request.is_navigation_request() and response.status < 500
        if response.status >= 400 and not is_checked_by_test:
            self.problems.append(f"{response.status} for {response.request.method} {response.url}")


class BrowserContexts:
    """Opens watched browser contexts, one for each person."""

    def __init__(self, browser: Browser, origin: str, name: str) -> None:
        self._browser = browser
        self._origin = origin
        self._name = name
        self._stack = ExitStack()
        self._pages: list[Page] = []
        self.monitor = ProblemMonitor(origin)

    def open(self, screen: Screen = DESKTOP) -> Page:
        """Open an empty page in its own context. Paths are relative to the server."""
        context = self._browser.new_context(
            base_url=self._origin,
            viewport={"width": screen.width, "height": HEIGHT},
            color_scheme=screen.color_scheme,
            java_script_enabled=screen.scripts,
            locale="en-GB",
            timezone_id="Europe/Berlin",
        )
        self._stack.callback(context.close)
        context.set_default_timeout(WAIT_MS)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=self._origin)
        self.monitor.attach(context)
        page = context.new_page()
        self._pages.append(page)
        return page

    def close(self) -> list[str]:
        """Close all contexts and return the problems."""
        for page in self._pages:
            screenshot(page, self._name)
        self._stack.close()
        return self.monitor.problems


def set_screen(page: Page, screen: Screen) -> None:
    """Change the screen of an open page."""
    page.emulate_media(color_scheme=screen.color_scheme)
    page.set_viewport_size({"width": screen.width, "height": HEIGHT})


def screenshot(page: Page, name: str) -> None:
    """Save a screenshot of a page for each of SCREENSHOT_SCREENS, if the environment names a directory."""
    directory = os.environ.get(SCREENSHOTS)
    if directory is None or page.is_closed():
        return
    stem = re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-")
    taken = sum(
        1 for path in Path(directory).iterdir() if re.fullmatch(rf"{stem}(-\d+)?-{DESKTOP.name}\.png", path.name)
    )
    for screen in SCREENSHOT_SCREENS:
        set_screen(page, screen)
        number = f"-{taken + 1}" if taken else ""
        page.screenshot(
            path=Path(directory, f"{stem}{number}-{screen.name}.png"), full_page=True, animations="disabled"
        )


def horizontal_overflow(page: Page) -> int:
    """Return how far a page scrolls horizontally, in pixels."""
    found: float = page.evaluate(
        """() => {
            scrollTo({left: 100_000, behavior: 'instant'});
            const far = scrollX;
            scrollTo({left: 0, behavior: 'instant'});
            return far;
        }"""
    )
    return round(found)


OpenPage = Callable[..., Page]
"""The type of `BrowserContexts.open`."""
