"""The pages of events: filters, deliveries and explanations."""

import json
import re
from html import unescape
from uuid import UUID

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect
from tests.dashboard.page_checks import check_page
from tests.dashboard.routes import links
from tests.dashboard.visitors import Guest, member, open_overview, operator
from tests.e2e.harness import TYPE, Api, Server, settled
from tests.e2e.receiving import Receiver

from uplift_server.store.schema import deliveries, events

UNSAFE = "<script>alert(1)</script>"


def send_event(api: Api, **fields: object) -> str:
    """Return the ID of a new event."""
    return str(api.send(1, **fields).json["id"])


def test_the_list_shows_events_without_deliveries_and_no_bodies(server: Server) -> None:
    account, api = server.account()
    event = api.ok("POST", "/v1/events", {"type": TYPE, "data": {"name": "Mara Okonkwo"}})["id"]
    page = member(server, account, "member").get(f"/accounts/{account}/events")
    assert page.status == 200
    assert "No deliveries" in page.text
    assert f"/accounts/{account}/events/{event}" in page.html
    assert "Mara" not in page.html


def test_the_list_counts_deliveries_by_status(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    for path in ("/a", "/b"):
        api.endpoint(receiver.url(path), event_types=[TYPE])
    event = send_event(api)
    for each in api.ok("GET", f"/v1/events/{event}/deliveries")["data"]:
        settled(api, each["id"])
    page = member(server, account).get(f"/accounts/{account}/events?type={TYPE}")
    assert "2 delivered" in page.text
    assert "webhook.created" not in page.text.partition("Accepted Deliveries")[2].partition("API and CLI")[0]


def test_events_are_filtered_by_type_and_time_and_paginated(server: Server) -> None:
    account, api = server.account()
    events = [send_event(api) for _ in range(27)]
    guest = member(server, account)
    path = f"/accounts/{account}/events"
    first = guest.get(f"{path}?type={TYPE}")
    assert (
        f"curl --globoff '{server.url}/v1/events?type={TYPE}' \\ -H \"Authorization: Bearer $UPLIFT_API_KEY\" "
        in first.text
    )
    assert f'-H "Uplift-Account: {account}"' in operator(server).get(path).text
    assert [events[26] in first.html, events[2] in first.html, events[1] in first.html] == [True, True, False]
    older = next(each for each in links(first.html) if "cursor=" in each)
    second = guest.get(older)
    assert [events[2] in second.html, events[1] in second.html, events[0] in second.html] == [False, True, True]
    created_at = api.ok("GET", f"/v1/events/{events[0]}")["created_at"]
    assert "No matching events" in guest.get(f"{path}?created_before=2026-01-01T00:00").text
    assert events[0] not in guest.get(f"{path}?created_after={created_at}").html
    assert "No matching events" in guest.get(f"{path}?type=webhook.created").text


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("created_after=yesterday", "Enter a UTC timestamp"),
        ("type=no.such", "The event type no.such does not exist"),
        ("id=zz", "hexadecimal"),
        ("id=0197", "Enter at least the first 6"),
        ("cursor=nonsense", "The cursor does not belong to this list"),
        (f"type={UNSAFE}&created_before={UNSAFE}&id={UNSAFE}", "hexadecimal"),
    ],
)
def test_an_invalid_filter_shows_an_error(server: Server, query: str, message: str) -> None:
    account, _ = server.account()
    page = operator(server).get(f"/accounts/{account}/events?{query}")
    assert page.status == 422
    assert message in page.text
    assert UNSAFE not in page.html


def test_an_event_is_found_by_an_id_prefix(server: Server) -> None:
    account, api = server.account()
    guest = member(server, account)
    path = f"/accounts/{account}/events"
    chosen = ["aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002"]
    for event in chosen:
        assert send_event(api, id=event) == event
    assert guest.get(f"{path}?id={chosen[0].upper()}").path == f"{path}/{chosen[0]}"
    assert guest.get(f"{path}?id=aaaaaaaa-00004000-8000-000000000002").path == f"{path}/{chosen[1]}"
    several = guest.get(f"{path}?id=aaaaaa")
    assert [each in several.html for each in chosen] == [True, True]
    assert "No matching events" in guest.get(f"{path}?id=bbbbbb").text
    # The ID of another account's event is not found.
    stranger, _ = server.account("Another")
    assert "No matching events" in member(server, stranger).get(f"/accounts/{stranger}/events?id={chosen[0]}").text


def test_the_page_shows_data_deliveries_and_endpoints(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    subscribed = api.endpoint(receiver.url("/a?token=hush"), event_types=[TYPE], description=UNSAFE)["id"]
    other = api.endpoint(receiver.url("/b"), event_types=["export.*"])["id"]
    data = {"number": 1.50, "text": UNSAFE, "large": 12345678901234567890}
    event = api.ok("POST", "/v1/events", {"type": TYPE, "data": data})["id"]
    [delivery] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    settled(api, delivery["id"])
    later = api.endpoint(receiver.url("/c"))["id"]
    guest = member(server, account)
    page = guest.get(f"/accounts/{account}/events/{event}")
    assert page.status == 200
    assert f"/accounts/{account}/deliveries/{delivery['id']}" in page.html
    assert all(f"/accounts/{account}/endpoints/{each}" in page.html for each in (subscribed, other, later))
    assert "was delivered at" in page.text
    assert "Not subscribed. The endpoint" in page.text
    assert "Endpoint created later. The endpoint was" in page.text
    assert '"large": 12345678901234567890' in page.text
    assert UNSAFE not in page.html
    assert "hush" not in page.html
    assert f"uplift events show {event}" in page.text


def test_removed_deliveries_are_distinguished_from_missing_ones(server: Server, receiver: Receiver) -> None:
    """Retention deletes deliveries before their events."""
    account, api = server.account()
    subscribed = api.endpoint(receiver.url("/a"), event_types=[TYPE])["id"]
    api.endpoint(receiver.url("/b"), event_types=["export.*"])
    event = send_event(api)
    [delivery] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    settled(api, delivery["id"])
    seq = sa.select(events.c.seq).where(events.c.id == UUID(event).bytes).scalar_subquery()
    gone = sa.delete(deliveries).where(deliveries.c.event_seq == seq)
    assert server.place.run(lambda connection: connection.execute(gone).rowcount) == 1
    page = member(server, account).get(f"/accounts/{account}/events/{event}")
    known, _, why_not = page.html.partition("Endpoints without a delivery")
    assert "Deleted deliveries" in known
    assert "was delivered" in known
    assert f"/accounts/{account}/endpoints/{subscribed}" in known.partition("Deleted deliveries")[2]
    assert "Not subscribed." in why_not
    assert subscribed not in why_not
    traced = operator(server).get(f"/operator/trace?id={event}").text
    assert "1 delivery deleted after the retention period. Endpoints without a delivery: 1 (not subscribed)." in traced
    assert "No endpoint matched" not in traced


def test_an_event_without_endpoints_links_to_the_create_form(server: Server) -> None:
    account, api = server.account()
    page = member(server, account).get(f"/accounts/{account}/events/{send_event(api)}")
    assert "No endpoints" in page.text
    assert f"/accounts/{account}/endpoints/new" in page.html


@pytest.mark.parametrize("path", ["events/{event}", "events/nonsense", "deliveries/{delivery}", "deliveries/dlv_1"])
def test_objects_of_another_account_are_not_found(server: Server, receiver: Receiver, path: str) -> None:
    _, api = server.account()
    api.endpoint(receiver.url("/a"), event_types=[TYPE])
    event = send_event(api)
    [delivery] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    stranger, _ = server.account("Another")
    guest: Guest = member(server, stranger)
    page = guest.get(f"/accounts/{stranger}/" + path.format(event=event, delivery=delivery["id"]))
    assert page.status == 404
    assert TYPE not in page.text


def test_an_event_with_many_endpoints_is_paginated(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    subscribed = [api.endpoint(receiver.url(f"/wants/{number}"), event_types=[TYPE])["id"] for number in range(27)]
    others = [api.endpoint(receiver.url(f"/other/{number}"), event_types=["export.*"])["id"] for number in range(52)]
    event = send_event(api)
    guest = member(server, account)
    first = guest.get(f"/accounts/{account}/events/{event}")
    assert "27 " in first.text
    [older] = [each for each in links(first.html) if "cursor=" in each]
    second = guest.get(older)
    shown = [{each for each in subscribed if f"/endpoints/{each}" in page.html} for page in (first, second)]
    assert [len(each) for each in shown] == [25, 2]
    assert set.union(*shown) == set(subscribed)
    assert sum(f"/endpoints/{each}" in first.html for each in others) == 50
    assert "2 more are not shown." in first.text


def test_an_event_keeps_a_deleted_event_type(server: Server) -> None:
    account, api = server.account()
    server.api().ok("PUT", "/v1/event-types/gone.soon", {"description": "Soon gone."})
    event = api.ok("POST", "/v1/events", {"type": "gone.soon", "data": {}})["id"]
    server.api().ok("DELETE", "/v1/event-types/gone.soon")
    guest = member(server, account)
    page = guest.get(f"/accounts/{account}/events/{event}")
    assert "gone.soon (no longer in the catalog)" in page.text
    assert event in guest.get(f"/accounts/{account}/events?type=gone.soon").html


def test_new_events_appear_in_the_list_and_link_to_their_page(server: Server, receiver: Receiver, page: Page) -> None:
    account, api = server.account()
    api.endpoint(receiver.url("/a"), event_types=[TYPE], description="Main")
    api.endpoint(receiver.url("/b"), event_types=["export.*"])
    open_overview(page, member(server, account))
    page.goto(f"/accounts/{account}/events")
    expect(page.get_by_role("cell", name="webhook.created").first).to_be_visible()
    # 240 kB of text that looks like HTML.
    text = "<i>" * 80_000
    event = api.ok("POST", "/v1/events", {"type": TYPE, "data": {"text": text}})["id"]
    link = page.locator(f'#live a[href$="/events/{event}"]')
    expect(link).to_be_visible()
    link.click()
    expect(page.get_by_text("1 delivered")).to_be_visible()
    expect(page.get_by_text("Not subscribed.")).to_be_visible()
    check_page(page)
    page.get_by_role("button", name="Copy indented body").click()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied["data"] == {"text": text}
    # An update replaces only the live region, so the body of the event stays on the page.
    api.endpoint(receiver.url("/c"), event_types=["export.*"])
    expect(page.get_by_text("Endpoint created later.")).to_be_visible()
    expect(page.get_by_role("heading", name="Body")).to_be_visible()


def test_lists_go_back_to_newer_rows_page_by_page(server: Server) -> None:
    account, api = server.account()
    for number in range(60):
        api.send(number)
    guest = member(server, account)

    def link(html: str, rel: str) -> str | None:
        found = re.search(rf'href="([^"]*)" rel="{rel}"', html)
        return None if found is None else unescape(found[1])

    pages = [guest.get(f"/accounts/{account}/events?type={TYPE}")]
    while older := link(pages[-1].html, "next"):
        pages.append(guest.get(older))
    assert len(pages) == 3
    assert link(pages[0].html, "prev") is None
    for newer_page, page in zip(pages[-2::-1], pages[:0:-1], strict=True):
        newer = link(page.html, "prev")
        assert newer is not None
        assert f"type={TYPE}" in newer
        assert ids_of(guest.get(newer).html) == ids_of(newer_page.html)


def ids_of(html: str) -> list[str]:
    """Return the IDs in the links to events, in the order of the page."""
    return re.findall(r'href="[^"]*/events/([^"?]+)"', html)
