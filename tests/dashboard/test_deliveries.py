"""The page of a delivery: attempts, status and actions."""

import subprocess
from html import unescape

import pytest
from playwright.sync_api import Page, expect
from tests.dashboard.page_checks import check_page
from tests.dashboard.visitors import Guest, PageResponse, member, open_overview
from tests.e2e import receiving
from tests.e2e.harness import TYPE, Api, Server, settled, wait_for
from tests.e2e.receiving import Receiver

UNSAFE = "<img src=x onerror=alert(1)>"


def delivery_of(api: Api, url: str, **fields: object) -> str:
    """Return the ID of a delivery of a new event to a new endpoint."""
    api.endpoint(url, event_types=[TYPE], **fields)
    event = api.send(1).json["id"]
    [delivery] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    return str(delivery["id"])


def shown(guest: Guest, account: str, delivery: str) -> PageResponse:
    """Return the page of a delivery."""
    page = guest.get(f"/accounts/{account}/deliveries/{delivery}")
    assert page.status == 200
    return page


def test_a_failed_delivery_shows_every_attempt_with_its_cause(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    crash = receiving.respond(500, b"Failed: " + UNSAFE.encode() + b"x" * 9000, Server="nginx/1")
    delivery = delivery_of(api, receiver.url("/crash", crash), headers={"Accept": "blue", "X-Jwt": "hush"})
    assert settled(api, delivery)["status"] == "failed"
    page = shown(member(server, account), account, delivery)
    assert page.text.count("Server error, 500") == 5
    assert page.text.count("500: it failed") >= 5
    assert page.text.count("Scheduled") == 5
    assert "Retries are exhausted." in page.text
    assert f"x-uplift-delivery: {delivery}" in page.text
    assert "Accept: blue" in page.text
    assert "hush" not in page.html
    assert "The values of custom headers are masked" in page.text
    assert "HTTP/1.1 500 Whatever" in page.text
    assert "The server stores the first 4,096 bytes." in page.text
    assert f"127.0.0.1:{receiver.port}" in page.text
    assert UNSAFE not in page.html
    assert UNSAFE in page.text


def test_a_failed_delivery_can_be_resent(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    delivery = delivery_of(api, receiver.url("/mended", receiving.respond(500)))
    assert settled(api, delivery)["status"] == "failed"
    receiver.url("/mended", receiving.respond())
    guest = member(server, account, "manager")
    path = f"/accounts/{account}/deliveries/{delivery}"
    page = guest.post(f"{path}/resend", page=path)
    assert (page.status, page.path) == (200, path)
    assert "Resend started." in page.text
    assert settled(api, delivery)["status"] == "delivered"
    page = shown(guest, account, delivery)
    assert "was delivered at" in page.text
    assert "Attempt 6 Resend" in page.text


def test_a_pending_delivery_shows_its_wait_and_can_be_cancelled(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    url = receiver.url("/busy")
    api.endpoint(url)
    wait_for(lambda: receiver.count("/busy") == 1, "the registration event")
    # The receiver now responds with Retry-After: 1 hour.
    receiver.url("/busy", receiving.respond(503, Retry_After="3600"))
    event = api.send(1).json["id"]
    [sent] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    delivery = sent["id"]
    wait_for(
        lambda: api.ok("GET", f"/v1/deliveries/{delivery}")["waiting_for"] == "schedule",
        "the delivery waits for its schedule",
    )
    guest = member(server, account)
    page = shown(guest, account, delivery)
    assert "Waiting for its scheduled time" in page.text
    path = f"/accounts/{account}/deliveries/{delivery}"
    page = guest.post(f"{path}/cancel", page=path)
    assert "Delivery cancelled" in page.text
    assert api.ok("GET", f"/v1/deliveries/{delivery}")["status"] == "cancelled"
    again = guest.post(f"{path}/cancel", page=path)
    assert (again.status, again.path) == (200, path)
    assert "cancelled" in again.problem


def test_a_blocked_delivery_leads_to_the_one_it_waits_for(server: Server, receiver: Receiver) -> None:
    """Skipping the blocking delivery sends the blocked one."""
    account, api = server.account()
    api.endpoint(receiver.url("/stuck"), ordering="endpoint", retry_schedule=["1h"])
    wait_for(lambda: receiver.count("/stuck") == 1, "the registration event")
    receiver.url("/stuck", receiving.respond(500))
    event = api.send(1).json["id"]
    [sent] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    first = sent["id"]
    wait_for(lambda: api.ok("GET", f"/v1/deliveries/{first}")["waiting_for"] == "schedule", "the first one failed")
    event = api.send(2).json["id"]
    [blocked] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    assert blocked["blocked_by"] == first
    guest = member(server, account)
    page = shown(guest, account, blocked["id"])
    assert f"The delivery waits for {first}, because its endpoint receives deliveries in order." in page.text
    assert "Waiting for another delivery, to keep the order" in page.text
    path = f"/accounts/{account}/deliveries"
    assert f'href="{path}/{first}"' in page.html
    assert f'action="{path}/{blocked["id"]}/resend"' not in page.html
    assert "Skip blocking delivery" in page.text
    assert f'action="{path}/{first}/cancel"' in page.html
    of_first = shown(guest, account, first)
    assert "1 delivery waits for this delivery" in of_first.text
    assert "Skip this delivery" in of_first.text

    receiver.url("/stuck", receiving.respond())
    assert "Delivery cancelled" in guest.post(f"{path}/{first}/cancel", page=f"{path}/{blocked['id']}").text
    assert settled(api, blocked["id"])["status"] == "delivered"


def test_the_page_explains_why_a_resend_is_not_possible(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    delivery = delivery_of(api, receiver.url("/a"))
    assert settled(api, delivery)["status"] == "delivered"
    guest = member(server, account)
    path = f"/accounts/{account}/deliveries/{delivery}"
    endpoint = api.ok("GET", f"/v1/deliveries/{delivery}")["endpoint"]
    api.ok("POST", f"/v1/endpoints/{endpoint}/pause")
    page = shown(guest, account, delivery)
    assert "The endpoint is paused." in page.text
    assert f'action="{path}/resend"' not in page.html
    assert "paused" in guest.post(f"{path}/resend", page=path).problem
    api.ok("DELETE", f"/v1/endpoints/{endpoint}")
    page = shown(guest, account, delivery)
    assert "its endpoint was deleted" in page.text
    assert "Deleted endpoint" in page.text


def test_members_cannot_change_deliveries(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    delivery = delivery_of(api, receiver.url("/a", receiving.respond(500)))
    assert settled(api, delivery)["status"] == "failed"
    guest = member(server, account, "member")
    page = shown(guest, account, delivery)
    assert "Resend" not in page.text
    assert "Replay failed deliveries" not in page.text
    path = f"/accounts/{account}/deliveries/{delivery}"
    assert guest.post(f"{path}/resend", page=path).status == 403
    assert guest.post(f"{path}/cancel", page=path).status == 403


@pytest.mark.parametrize("padding", ["it's", "'" * 60_000], ids=["small", "large"])
def test_the_curl_command_sends_the_same_request(server: Server, receiver: Receiver, padding: str) -> None:
    account, api = server.account()
    url = receiver.url("/hook?a=1&b=$HOME")
    api.endpoint(url, event_types=[TYPE], headers={"Prefer": 'it\'s "so" $HOME'})
    event = api.ok("POST", "/v1/events", {"type": TYPE, "data": {"number": 1, "text": padding, "unit": "m·s⁻¹"}})["id"]
    [delivery] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    assert settled(api, delivery["id"])["status"] == "delivered"
    page = shown(member(server, account), account, delivery["id"])
    shown_command = page.html.partition('aria-label="Copy as curl"')[0].rpartition("<code>")[2].partition("</code>")[0]
    command = unescape(shown_command)
    subprocess.run(["sh", "-s"], input=command, check=True, capture_output=True, text=True, timeout=20)
    original, repeated = receiver.on("/hook?a=1&b=$HOME")
    assert repeated.body == original.body
    assert repeated.headers == original.headers


def test_the_page_updates_after_a_resend(server: Server, receiver: Receiver, page: Page) -> None:
    account, api = server.account()
    delivery = delivery_of(api, receiver.url("/down", receiving.respond(503)))
    assert settled(api, delivery)["status"] == "failed"
    receiver.url("/down", receiving.respond())
    guest = member(server, account)
    open_overview(page, guest)
    page.goto(f"/accounts/{account}/deliveries/{delivery}")
    expect(page.get_by_text("Server error, 503")).to_have_count(5)
    path = f"/accounts/{account}/deliveries/{delivery}"
    assert guest.post(f"{path}/resend", page=path).status == 200
    expect(page.get_by_text("Delivered, 200")).to_be_visible()
    for each in page.locator("details").all():
        each.evaluate("each => { each.open = true }")
    check_page(page)
