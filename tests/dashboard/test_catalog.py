"""The event catalog: list, schema, subscribed endpoints, and test events."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect
from tests.dashboard.page_checks import check_page
from tests.dashboard.visitors import member, open_overview
from tests.e2e import receiving
from tests.e2e.harness import TYPE, Server
from tests.e2e.receiving import Receiver

UNSAFE = "<b onclick=alert(1)>bold</b>"


def publish(server: Server, name: str, **fields: Any) -> None:
    """Create an event type."""
    server.api().ok("PUT", f"/v1/event-types/{name}", {"description": "Something happened.", **fields})


def test_event_types_are_listed_by_group(server: Server) -> None:
    account, _ = server.account()
    publish(server, "stadium.opened", group="venues", description=f"A stadium opened. {UNSAFE}")
    publish(server, "stadium.closed", group="venues", archived=True)
    guest = member(server, account, "member")
    page = guest.get(f"/accounts/{account}/catalog")
    assert page.status == 200
    group = page.html.partition("<h2>venues</h2>")[2].partition("<h2>")[0]
    assert f"/accounts/{account}/catalog/stadium.opened" in group
    assert "archived" in group
    assert UNSAFE not in page.html
    found = guest.get(f"/accounts/{account}/catalog?q=STADIUM+opened")
    assert "/catalog/stadium.opened" in found.html
    assert "/catalog/stadium.closed" not in found.html
    assert "No matching event types" in guest.get(f"/accounts/{account}/catalog?q=nothing-has-this").text


def test_the_page_shows_schema_and_subscribed_endpoints(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    schema = {
        "type": "object",
        "required": ["object"],
        "properties": {"object": {"type": "object", "properties": {"unit": {"type": "string", "enum": ["m", UNSAFE]}}}},
    }
    publish(server, "jump.measured", schema=schema, example={"object": {"unit": "m"}}, api_version="02/02/2026")
    subscribed = api.endpoint(receiver.url("/a?token=hush"), event_types=["jump.*"])["id"]
    other = api.endpoint(receiver.url("/b"), event_types=[TYPE])["id"]
    guest = member(server, account, "member")
    page = guest.get(f"/accounts/{account}/catalog/jump.measured")
    assert page.status == 200
    assert "object object, required" in page.text
    assert f"unit string one of m, {UNSAFE}" in page.text
    assert "02/02/2026" in page.text
    assert "Custom: not part of the Uplift documentation" in page.text
    listed = page.html.partition("Subscribed endpoints")[2].partition("</section>")[0]
    assert [each in listed for each in (subscribed, other)] == [True, False]
    assert UNSAFE not in page.html
    assert "hush" not in page.html
    assert "Source Uplift" in guest.get(f"/accounts/{account}/catalog/movement.analytics.created").text
    assert guest.get(f"/accounts/{account}/catalog/no.such").status == 404


def test_an_archived_type_cannot_be_tested(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    endpoint = api.endpoint(receiver.url("/a"))["id"]
    publish(server, "old.news", archived=True)
    guest = member(server, account)
    path = f"/accounts/{account}/catalog/old.news"
    page = guest.get(path)
    assert "Archived on" in page.text
    assert "Send test event" not in page.text
    rejected = guest.post(f"{path}/test", page=path, endpoint=endpoint)
    assert rejected.status == 422


@pytest.mark.parametrize("role", ["member", "owner"])
def test_a_test_event_is_sent_and_its_delivery_shown(server: Server, receiver: Receiver, role: str) -> None:
    account, api = server.account()
    endpoint = api.endpoint(receiver.url("/a", receiving.respond(404)), event_types=["export.*"])["id"]
    guest = member(server, account, role)
    path = f"/accounts/{account}/catalog/{TYPE}"
    page = guest.post(f"{path}/test", page=path, endpoint=endpoint)
    assert page.path.startswith(f"/accounts/{account}/deliveries/dlv_")
    assert "Test event sent. Outcome: Client error." in page.text
    assert "404: " in page.text
    assert [each.headers["x-uplift-event"] for each in receiver.on("/a")] == [TYPE]


def test_test_events_go_only_to_endpoints_of_the_account(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    api.endpoint(receiver.url("/mine"))
    _, stranger = server.account("Another")
    theirs = stranger.endpoint(receiver.url("/theirs"))["id"]
    guest = member(server, account)
    path = f"/accounts/{account}/catalog/{TYPE}"
    for endpoint in (theirs, "", "ep_1"):
        rejected = guest.post(f"{path}/test", page=path, endpoint=endpoint)
        assert (rejected.status, "Select an endpoint in this account." in rejected.text) == (422, True)
    assert receiver.on("/theirs") == []


def test_the_catalog_links_to_accessible_event_type_pages(server: Server, receiver: Receiver, page: Page) -> None:
    account, api = server.account()
    api.endpoint(receiver.url("/a"))
    open_overview(page, member(server, account))
    page.goto(f"/accounts/{account}/catalog")
    page.get_by_role("link", name="movement.analytics.created").click()
    expect(page.get_by_role("heading", name="Subscribed endpoints")).to_be_visible()
    for each in page.locator("main details").all():
        each.evaluate("each => { each.open = true }")
    check_page(page)
