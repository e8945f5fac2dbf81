"""The documentation in a browser: search, copy buttons, and pages that fit narrow screens."""

import re

import pytest
from playwright.sync_api import Page, expect
from tests.dashboard.accessibility import check_accessibility
from tests.dashboard.browsing import (
    DESKTOP,
    PHONE,
    SCREENS,
    WITHOUT_SCRIPTS,
    OpenPage,
    horizontal_overflow,
    screenshot,
    set_screen,
)

from uplift_server.api.documentation.documents import PAGES, Document


@pytest.mark.parametrize("document", PAGES, ids=lambda document: document.address)
def test_a_page_fits_the_window_and_is_accessible(page: Page, document: Document) -> None:
    page.goto(document.address)
    for screen in SCREENS:
        set_screen(page, screen)
        assert horizontal_overflow(page) == 0, screen.name
        check_accessibility(page)
    screenshot(page, f"documentation {document.title}")


def test_the_search_finds_a_section_with_the_keyboard(page: Page) -> None:
    page.goto("/docs/retries")
    page.keyboard.press("/")
    page.keyboard.type("validation_failed")
    options = page.get_by_role("option")
    expect(options.first).to_contain_text("validation_failed")
    expect(page.get_by_role("listbox").locator("mark").first).to_have_text("validation_failed")
    check_accessibility(page)
    page.keyboard.press("ArrowDown")
    expect(options.first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/docs/errors#validation_failed$"))


@pytest.mark.parametrize("query", ["whsec_", "Retry-After", "54.245.28.22"])
def test_the_search_finds_names_with_punctuation(page: Page, query: str) -> None:
    page.goto("/docs/errors")
    search = page.get_by_role("combobox")
    search.fill(query)
    expect(page.get_by_role("option").locator("mark").first).to_have_text(re.compile(re.escape(query), re.IGNORECASE))
    search.press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()


def test_the_search_shows_when_nothing_matches(page: Page) -> None:
    page.goto("/docs")
    page.get_by_role("combobox").fill("xyzzy")
    expect(page.get_by_role("status")).to_have_text("No results")


def test_the_script_and_the_search_page_show_the_same_order(page: Page) -> None:
    hrefs = "links => links.map(link => link.getAttribute('href'))"
    page.goto("/docs")
    for query in ("retry", "rotate secret", "whsec_"):
        page.get_by_role("combobox").fill(query)
        expect(page.get_by_role("status")).to_have_text(re.compile("results"))
        found = page.get_by_role("option").evaluate_all(hrefs)
        page.get_by_role("combobox").press("Enter")
        expect(page).to_have_url(re.compile(r"/docs/search\?q="))
        listed = page.locator(".results a").evaluate_all(hrefs)
        assert found
        assert listed[: len(found)] == found


def test_the_search_works_without_scripts(open_page: OpenPage) -> None:
    page = open_page(WITHOUT_SCRIPTS)
    page.goto("/docs")
    search = page.get_by_role("searchbox")
    search.fill("validation_failed")
    search.press("Enter")
    page.locator(".results a").first.click()
    expect(page).to_have_url(re.compile(r"/docs/errors#validation_failed$"))


def test_code_blocks_have_copy_buttons(page: Page) -> None:
    page.goto("/docs")
    block = page.locator("main .code").first
    block.hover()
    block.get_by_role("button", name="Copy").click()
    expect(block.get_by_role("button")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == block.locator("code").inner_text().rstrip()


def test_the_contents_link_to_sections_on_wide_and_narrow_screens(open_page: OpenPage) -> None:
    for screen in (DESKTOP, PHONE):
        page = open_page(screen)
        page.goto("/docs/errors")
        contents = page.get_by_role("navigation", name="On this page")
        if screen is PHONE:
            expect(contents).to_be_hidden()
            page.get_by_text("On this page").first.click()
        contents.get_by_role("link", name="validation_failed").click()
        expect(page).to_have_url(re.compile(r"#validation_failed$"))
        expect(page.locator("#validation_failed")).to_be_in_viewport()


def test_a_moved_anchor_redirects_to_its_new_page(page: Page) -> None:
    page.goto("/docs#validation_failed")
    expect(page).to_have_url(re.compile(r"/docs/errors#validation_failed$"))
