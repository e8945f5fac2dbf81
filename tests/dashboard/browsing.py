"""A browser as a person has it: the system's Chromium, watched for whatever none of our pages may do."""

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

WAIT_MS = 15_000
HEIGHT = 800
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SCREENSHOTS = "DASHBOARD_SCREENSHOTS"
"""The variable that names a directory: every page that a test judges or leaves open is drawn there, in every look."""

# What a violation of the Content-Security-Policy was about, more exactly than the browser's own line says it.
TELL_VIOLATIONS = """document.addEventListener('securitypolicyviolation', (event) => console.error(
    `Content-Security-Policy: ${event.effectiveDirective} forbids ${event.blockedURI || 'inline'}`
    + ` at ${event.sourceFile}:${event.lineNumber} ${event.sample}`))"""
# Responses are looked at themselves: the first only repeats their status. With the second htmx says of a live stream
# that it was ended, as it is when somebody is signed out.
OF_A_RESPONSE = re.compile(r"^Failed to load resource: the server responded with a status of \d+|^\[object Event\]$")


@dataclass(frozen=True)
class Look:
    """How a person's screen is set."""

    name: str
    width: int
    colours: Literal["light", "dark"]
    scripts: bool = True


DESK = Look("desk", 1280, "light")
NIGHT = Look("night", 1280, "dark")
PHONE = Look("phone", 360, "dark")
WITHOUT_SCRIPTS = Look("without-scripts", 1280, "light", scripts=False)
LOOKS = (DESK, PHONE)
"""Between them both widths and both sets of colours."""
DRAWN = (PHONE, NIGHT, DESK)
"""How pages are drawn for people to look at; the last is how they are left."""


def launch(playwright: Playwright) -> Browser:
    """The system's Chromium. Fails where there is none."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.fail("Chromium is not on this machine. Install it (Debian: apt-get install -y chromium)", pytrace=False)
    # Pages of a busy server look for news every 5 s only.
    expect.set_options(timeout=WAIT_MS)
    return playwright.chromium.launch(executable_path=found)


@dataclass
class Watch:
    """What pages of one origin did that they may not."""

    origin: str
    problems: list[str] = field(default_factory=list)

    def over(self, context: BrowserContext) -> None:
        """Look at everything a context does from now on."""
        context.add_init_script(TELL_VIOLATIONS)
        context.on("console", self._console)
        context.on("weberror", lambda error: self.problems.append(f"error of a script: {error.error}"))
        context.on("request", self._request)
        context.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not OF_A_RESPONSE.match(message.text):
            self.problems.append(f"console of {message.page.url if message.page else '?'}: {message.text}")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme != "data" and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.problems.append(f"a request to another origin: {request.url}")

    def _response(self, response: Response) -> None:
        # A page that says 404 or 422 is for its test to judge; what a page brings along is there.
        judged = response.request.is_navigation_request() and response.status < 500
        if response.status >= 400 and not judged:
            self.problems.append(f"{response.status} for {response.request.method} {response.url}")


class Desk:
    """Where a test sits: it opens browsers of different people, one context each, and all of them are watched."""

    def __init__(self, browser: Browser, origin: str, name: str) -> None:
        self._browser = browser
        self._origin = origin
        self._name = name
        self._stack = ExitStack()
        self._pages: list[Page] = []
        self.watch = Watch(origin)

    def open(self, look: Look = DESK) -> Page:
        """A page in a context of its own, nothing loaded; paths are within the server."""
        context = self._browser.new_context(
            base_url=self._origin,
            viewport={"width": look.width, "height": HEIGHT},
            color_scheme=look.colours,
            java_script_enabled=look.scripts,
            locale="en-GB",
            timezone_id="Europe/Berlin",
        )
        self._stack.callback(context.close)
        context.set_default_timeout(WAIT_MS)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=self._origin)
        self.watch.over(context)
        page = context.new_page()
        self._pages.append(page)
        return page

    def leave(self) -> list[str]:
        """Close everything; what was wrong on the way."""
        for page in self._pages:
            screenshot(page, self._name)
        self._stack.close()
        return self.watch.problems


def put_on(page: Page, look: Look) -> None:
    """Change the screen of an open page."""
    page.emulate_media(color_scheme=look.colours)
    page.set_viewport_size({"width": look.width, "height": HEIGHT})


def screenshot(page: Page, name: str) -> None:
    """Draw a whole page in every look into the directory that the environment names, if it names one."""
    directory = os.environ.get(SCREENSHOTS)
    if directory is None or page.is_closed():
        return
    stem = re.sub(r"[^a-zA-Z0-9]+", "-", name).strip("-")
    taken = sum(1 for path in Path(directory).iterdir() if re.fullmatch(rf"{stem}(-\d+)?-{DESK.name}\.png", path.name))
    for look in DRAWN:
        put_on(page, look)
        number = f"-{taken + 1}" if taken else ""
        page.screenshot(path=Path(directory, f"{stem}{number}-{look.name}.png"), full_page=True, animations="disabled")


def sideways(page: Page) -> int:
    """How far a page can be scrolled sideways, in pixels; 0 where all of it is within its window."""
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
"""`Desk.open`, as tests get it."""
