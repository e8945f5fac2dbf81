"""An outage in a browser: failure, pause, enable, resend and rotation."""

from playwright.sync_api import Page, expect
from tests.dashboard.visitors import member, open_overview
from tests.e2e.harness import Server, deliveries_of, settled
from tests.e2e.receiving import Receiver, respond

from uplift_webhooks import Webhook


def test_an_owner_handles_an_outage(server: Server, receiver: Receiver, page: Page) -> None:
    account, api = server.account()
    made = api.endpoint(receiver.url("/hook"))
    [registration_event] = api.ok("GET", "/v1/deliveries")["data"]
    settled(api, registration_event["id"])
    receiver.url("/hook", respond(503))
    failed = api.send(1).json["id"]
    [delivery] = deliveries_of(api, failed)
    settled(api, delivery["id"])
    open_overview(page, member(server, account))

    # Open the failing endpoint.
    page.get_by_role("link", name="Endpoints", exact=True).click()
    page.get_by_role("link", name="/hook").first.click()
    expect(page.get_by_role("heading", name="Failing")).to_be_visible()

    # Pause the endpoint. The server holds its deliveries.
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("heading", name="Paused")).to_be_visible()
    held = [api.send(number).json["id"] for number in (2, 3)]
    expect(page.locator("tbody .status.held")).to_have_count(2)

    # The receiver recovers. The server sends the held deliveries, and the page updates.
    receiver.url("/hook", respond(200))
    page.get_by_role("button", name="Enable endpoint").click()
    expect(page.get_by_text("Held: 2")).to_be_visible()
    page.locator(":popover-open").get_by_role("button", name="Enable").click()
    for event in held:
        [each] = deliveries_of(api, event)
        assert settled(api, each["id"])["status"] == "delivered"
    expect(page.locator("tbody .status.delivered")).to_have_count(3)

    # Resend the failed delivery.
    page.goto(f"/accounts/{account}/deliveries/{delivery['id']}")
    page.get_by_role("button", name="Resend delivery").click()
    expect(page.get_by_text("Delivered, 200")).to_be_visible()

    # Rotate the secret. Both secrets are active during the overlap.
    page.goto(f"/accounts/{account}/endpoints/{made['id']}/security")
    page.get_by_role("button", name="Rotate secret").click()
    expect(page.get_by_text("Add this secret to your servers before the old secret expires.")).to_be_visible()
    page.get_by_role("button", name="Copy secret", exact=True).click()
    new = page.evaluate("navigator.clipboard.readText()")
    before = len(receiver.on("/hook"))
    api.send(4)
    last = receiver.wait("/hook", before + 1)[-1]
    for secret in (made["secret"], new):
        assert Webhook(secret).unwrap(last.body, last.headers).raw["data"]["number"] == 4
