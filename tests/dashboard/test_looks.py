"""Appearance of pages: one color per status, and URLs that break only after their separators."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page
from tests.dashboard.browsing import PHONE, SCREENS, OpenPage, Screen
from tests.dashboard.operators import sign_in_operator
from tests.dashboard.visitors import member, open_overview
from tests.e2e.harness import Server
from tests.e2e.receiving import Receiver

import uplift_server.dashboard

TEMPLATES = Path(uplift_server.dashboard.__file__).with_name("templates")
CSS = Path(uplift_server.dashboard.__file__).with_name("static").joinpath("dashboard.css").read_text(encoding="utf-8")
STATUSES = ("delivered", "failed", "failing", "disabled", "warned", "pending", "held", "paused", "cancelled")

# The text before each line break of a URL on the page.
LINE_ENDS = """() => [...document.querySelectorAll('main .url')].flatMap((url) => {
    const ends = [];
    let top = null, text = '';
    const walker = document.createTreeWalker(url, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        for (let at = 0; at < node.length; at += 1) {
            const range = document.createRange();
            range.setStart(node, at);
            range.setEnd(node, at + 1);
            const box = range.getBoundingClientRect();
            if (top !== null && box.top > top + 5) ends.push(text);
            top = box.top;
            text += node.data[at];
        }
    }
    return ends;
})"""


# For each card: whether its button is below the first line, and the texts that the button covers.
BESIDE_BUTTON = """(cards) => cards.map((card) => {
    const button = card.querySelector(':scope > .calls > button').getBoundingClientRect();
    const wrong = button.top < card.firstElementChild.getBoundingClientRect().bottom ? [] : ['below'];
    for (const each of card.querySelectorAll(':is(h2, h3, p, .status, a)')) {
        const range = document.createRange();
        range.selectNodeContents(each);
        for (const box of range.getClientRects()) {
            const across = box.left < button.right - 1 && button.left < box.right - 1;
            if (across && box.top < button.bottom - 1 && button.top < box.bottom - 1) wrong.push(each.textContent);
        }
    }
    return wrong;
})"""


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_has_one_color(status: str) -> None:
    rules = re.findall(r"([^{}]*)\{([^{}]*)\}", CSS)
    named = [body for selector, body in rules if re.search(rf"\.{status}\b", selector)]
    assert len(named) == 1, named
    assert re.fullmatch(r"\s*--status: var\(--(\w+)\); --status-ground: var\(--\1-ground\);\s*", named[0])


def _line_ends(page: Page, path: str) -> list[str]:
    page.goto(path)
    ends: list[str] = page.evaluate(LINE_ENDS)
    return ends


def test_urls_break_only_after_separators(server: Server, receiver: Receiver, open_page: OpenPage) -> None:
    account, api = server.account()
    long = receiver.url("/integrations/v2/uplift-webhooks/production/receive/movement-analytics/created/all-athletes")
    endpoint = api.endpoint(long)["id"]
    api.send(1)
    page = open_page()
    open_overview(page, member(server, account))
    ends = [
        end
        for path in ("overview", "endpoints", f"endpoints/{endpoint}")
        for end in _line_ends(page, f"/accounts/{account}/{path}")
    ]
    assert ends
    assert not [end for end in ends if not end.endswith("/")]


@pytest.mark.parametrize("template", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.name)
def test_actions_are_buttons_and_not_disclosures(template: Path) -> None:
    found = re.findall(r"<details.*?</details>", template.read_text(encoding="utf-8"), re.DOTALL)
    # The only exception is the phone menu, which contains the search form.
    assert not [each for each in found if "<form" in each and 'class="menu"' not in each]


def _lines(page: Page, selector: str) -> dict[str, int]:
    """Return the number of text lines of each element, by its text."""
    found: dict[str, int] = page.evaluate(
        """(selector) => Object.fromEntries([...document.querySelectorAll(selector)].map((each) => {
            const range = document.createRange();
            range.selectNodeContents(each);
            return [each.innerText, new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size];
        }))""",
        selector,
    )
    return found


def test_notes_of_the_fleet_have_at_most_two_lines(server: Server, receiver: Receiver, page: Page) -> None:
    _, api = server.account()
    api.endpoint(receiver.url("/counted"))
    api.send(1)
    sign_in_operator(page).goto("/operator")
    lines = _lines(page, ".figure .note")
    assert lines
    assert {text: number for text, number in lines.items() if number > 2} == {}


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.name)
def test_the_button_of_a_card_needs_no_line(
    server: Server, receiver: Receiver, open_page: OpenPage, screen: Screen
) -> None:
    account, api = server.account()
    endpoint = api.endpoint(receiver.url("/carded"))["id"]
    page = open_page(screen)
    open_overview(page, member(server, account))
    for path in ("get-started", "overview", "developers", f"endpoints/{endpoint}", f"endpoints/{endpoint}/security"):
        page.goto(f"/accounts/{account}/{path}")
        # A narrow card with tabs has no space for the button.
        cards = page.locator(".card:has(> .calls)" + (":not(:has(nav))" if screen is PHONE else ""))
        for wrong in cards.evaluate_all(BESIDE_BUTTON):
            assert wrong == [], path
