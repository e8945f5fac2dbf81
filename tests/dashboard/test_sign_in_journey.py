"""Sign-in and sign-out in a browser."""

import re

from playwright.sync_api import Page, expect
from tests.dashboard.browsing import OpenPage
from tests.dashboard.visitors import operator_link, portal_link
from tests.e2e.harness import OPERATOR_KEY, Server


def enter(page: Page, link: str) -> None:
    """Open a one-time link and use it."""
    page.goto(link)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: link not in url)


def test_a_portal_link_works_once(server: Server, page: Page, open_page: OpenPage) -> None:
    account, _ = server.account("Rapids")
    link = portal_link(server, account, email="ana@rapids.example", role="manager")

    enter(page, link)
    expect(page).to_have_url(re.compile(f"/accounts/{account}/get-started$"))
    expect(page.get_by_text("ana@rapids.example")).to_be_visible()

    second = open_page()
    second.goto(link)
    expect(second.get_by_text("This link was already used")).to_be_visible()
    expect(second.get_by_role("button", name="Sign in")).to_have_count(0)


def test_an_operator_signs_in_with_a_key(server: Server, page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="Sign in as operator").click()
    page.get_by_label("Operator key").fill("op_not_this_one")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("operator key (op_…) is unknown")

    page.get_by_label("Operator key").fill(OPERATOR_KEY)
    page.get_by_role("button", name="Sign in").click()

    expect(page).to_have_url(f"{server.url}/operator")


def test_signing_out_ends_the_session(server: Server, page: Page) -> None:
    enter(page, operator_link(server))
    cookies = page.context.cookies()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status").filter(has_text="signed out")).to_be_visible()

    page.context.add_cookies(cookies)
    page.goto("/")

    expect(page).to_have_url(f"{server.url}/sign-in")


def test_scripts_and_other_sites_cannot_use_cookies(server: Server, page: Page) -> None:
    enter(page, operator_link(server))

    assert page.evaluate("document.cookie") == ""
    assert {(each["httpOnly"], each["sameSite"]) for each in page.context.cookies()} == {(True, "Lax")}
