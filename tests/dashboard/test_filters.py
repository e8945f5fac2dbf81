"""The filter of an endpoint in a browser: the live preview, the form without scripts, and the endpoint's page."""

import json

import pytest
from playwright.sync_api import Page, expect
from tests.dashboard.browsing import DESKTOP, WITHOUT_SCRIPTS, OpenPage
from tests.dashboard.page_checks import check_page
from tests.dashboard.test_endpoint_journey import enter
from tests.dashboard.visitors import member
from tests.e2e.harness import TYPE, Server

URL = "http://127.0.0.1:9/webhook"


def filled_account(server: Server) -> str:
    """Return an account with three numbered events."""
    account, api = server.account()
    for number in range(3):
        assert api.send(number).status == 202
    return account


def test_the_preview_follows_the_input(server: Server, page: Page) -> None:
    account = filled_account(server)
    enter(page, server, account)
    page.goto(f"/accounts/{account}/endpoints/new")
    page.get_by_text("Filter", exact=True).first.click()
    field, preview = page.get_by_label("Filter").first, page.locator("#filter-preview")
    expect(preview).to_be_empty()
    field.fill('{"number": [{"numeric": ["<", 2]}]}')
    expect(preview).to_contain_text("The filter matches 2 of the 3 newest events.")
    rows = preview.locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("Does not match")
    expect(rows.first).to_contain_text("data.number")
    expect(rows.last).to_contain_text("Matches")
    check_page(page)
    field.fill('{"number": [{"numerc": ["<", 2]}]}')
    expect(preview).to_contain_text("number.0.numerc: The operator does not exist. Did you mean numeric?")
    field.fill('{"number"')
    expect(preview).to_contain_text("Enter a JSON object")
    field.fill('{"number": [7]}')
    expect(preview).to_contain_text("The filter matches 0 of the 3 newest events.")
    page.get_by_label("athlete.created").check()
    expect(preview).to_contain_text("no events of these types")
    page.get_by_label(TYPE).check()
    expect(preview).to_contain_text("The filter matches 0 of the 3 newest events.")
    field.fill("")
    expect(preview).to_be_empty()
    # The preview did not submit the form.
    field.fill('{"number": [1]}')
    page.get_by_label("URL", exact=True).fill(URL)
    page.get_by_label("URL", exact=True).press("Enter")
    expect(page.get_by_role("heading", name="Secret")).to_be_visible()
    page.goto(f"/accounts/{account}/endpoints")
    page.get_by_role("link", name="127.0.0.1").click()
    page.get_by_role("link", name="Subscription").click()
    expect(page.locator(".facts")).to_contain_text('"number"')
    page.get_by_role("link", name="Edit endpoint").first.click()
    expect(page.locator("#filter-preview")).to_contain_text("The filter matches 1 of the 3 newest events.")


def test_the_preview_works_without_scripts(server: Server, open_page: OpenPage) -> None:
    account = filled_account(server)
    page = open_page(WITHOUT_SCRIPTS)
    enter(page, server, account)
    page.goto(f"/accounts/{account}/endpoints/new")
    page.get_by_text("Filter", exact=True).first.click()
    page.get_by_label("Filter").first.fill('{"number": [1]}')
    page.get_by_label("URL", exact=True).fill(URL)
    page.get_by_role("button", name="Preview filter").click()
    expect(page.locator("#filter-preview")).to_contain_text("The filter matches 1 of the 3 newest events.")
    expect(page.get_by_label("URL", exact=True)).to_have_value(URL)
    page.get_by_label("Filter").first.fill('{"number": []}')
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.locator("#filter-problem")).to_contain_text("number: The list is empty")
    page.get_by_label("Filter").first.fill('{"number": [1]}')
    page.get_by_label("URL", exact=True).press("Enter")
    expect(page.get_by_role("heading", name="Secret")).to_be_visible()


def test_the_form_edits_and_clears_a_filter(server: Server) -> None:
    account, api = server.account()
    endpoint = api.endpoint(URL, filter={"a": [1], "b": [1.0, "\u00e9"]})["id"]
    guest = member(server, account)
    edit, path = f"/accounts/{account}/endpoints/{endpoint}/edit", f"/v1/endpoints/{endpoint}"
    guest.post(edit, url=URL, description="x")
    assert json.dumps(api.ok("GET", path)["filter"]) == json.dumps({"a": [1], "b": [1.0, "\u00e9"]})
    guest.post(edit, url=URL, filter='{"a": [2]}')
    assert api.ok("GET", path)["filter"] == {"a": [2]}
    entry = api.ok("GET", f"/v1/audit-log?subject={endpoint}")["data"][0]
    assert "filter" in entry["details"]["changed"]
    rejected = guest.post(edit, url=URL, filter='{"a": 2}')
    assert (rejected.status, "a: The value is not a list" in rejected.text) == (422, True)
    guest.post(edit, url=URL, filter="")
    assert api.ok("GET", path)["filter"] is None


@pytest.mark.parametrize("value", ['{"a": ["</textarea><script>alert(1)</script>"]}', "<b>"])
def test_the_filter_is_escaped(server: Server, open_page: OpenPage, value: str) -> None:
    account = filled_account(server)
    page = open_page(DESKTOP)
    enter(page, server, account)
    page.goto(f"/accounts/{account}/endpoints/new")
    page.get_by_text("Filter", exact=True).first.click()
    page.get_by_label("Filter").first.fill(value)
    expect(page.locator("#filter-preview")).not_to_be_empty()
    expect(page.get_by_label("Filter").first).to_have_value(value)
    assert page.locator("#filter-preview script, #filter-preview b").count() == 0


def test_the_page_of_an_event_explains_the_filter(server: Server, page: Page) -> None:
    account, api = server.account()
    api.endpoint(URL, filter={"number": [7]})
    event = api.send(1).json["id"]
    enter(page, server, account)
    page.goto(f"/accounts/{account}/events/{event}")
    expect(page.get_by_text("Filtered").first).to_be_visible()
    expect(page.get_by_text("data.number").first).to_be_visible()
