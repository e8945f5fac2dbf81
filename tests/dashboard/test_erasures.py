"""The pages of erasures: preview, confirmation, receipt, and erased events."""

from playwright.sync_api import Page, expect
from tests.dashboard.page_checks import check_page
from tests.dashboard.visitors import member, operator
from tests.e2e.harness import TYPE, Server, deliveries_of, settled, wait_for
from tests.e2e.receiving import Receiver

OBJECT_ID = "athlete-5521"


def test_an_admin_erases_an_athlete(server: Server, receiver: Receiver, page: Page) -> None:
    account, api = server.account()
    api.endpoint(receiver.url("/greets"))
    sent = {"type": TYPE, "data": {"object": {"id": OBJECT_ID, "name": "Zebulon"}}}
    events = [api.ok("POST", "/v1/events", sent)["id"] for _ in range(2)]
    [delivery, *_] = deliveries_of(api, events[0])
    settled(api, delivery["id"])
    own = f"/accounts/{account}"
    shown = member(server, account, "admin").share_session(page)
    shown.goto(f"{own}/settings/erasures")
    shown.get_by_role("link", name="Erase events").first.click()
    shown.get_by_label("Object ID").fill(OBJECT_ID)
    shown.get_by_role("button", name="Preview").click()
    expect(shown.get_by_text("2 events")).to_be_visible()
    assert OBJECT_ID not in shown.url
    # A reload works, and a form without the confirmation does nothing.
    shown.reload()
    expect(shown.get_by_text("2 events")).to_be_visible()
    check_page(shown)
    shown.get_by_role("button", name="Erase events").click()
    assert "/erasures/new" in shown.url
    shown.get_by_label("I want to erase these events.").check()
    shown.get_by_role("button", name="Erase events").click()
    expect(shown.get_by_text("Erasure started.")).to_be_visible()
    [erasure] = api.ok("GET", f"/v1/accounts/{account}/erasures")["data"]
    path = f"/v1/accounts/{account}/erasures/{erasure['id']}"
    wait_for(lambda: api.ok("GET", path)["state"] == "completed", "the erasure is completed")
    shown.reload()
    expect(shown.get_by_role("heading", name="Erasure receipt")).to_be_visible()
    expect(shown.get_by_text("the content of 2 events")).to_be_visible()
    check_page(shown)
    for place, text in (
        (f"{own}/events/{events[0]}", "The body was erased."),
        (f"{own}/deliveries/{delivery['id']}", "The request and the response were erased."),
        (f"{own}/settings/erasures", "Completed"),
    ):
        shown.goto(place)
        expect(shown.get_by_text(text).first).to_be_visible()
        assert "Zebulon" not in shown.content()
        assert OBJECT_ID not in shown.content()
        check_page(shown)
    shown.goto(f"{own}/settings/erasures/new")
    assert OBJECT_ID not in shown.content()


def test_the_form_explains_wrong_input(server: Server) -> None:
    account, api = server.account()
    guest = operator(server)
    form, target = f"/accounts/{account}/settings/erasures/new", f"/accounts/{account}/settings/erasures/preview"
    assert "Send either" in guest.post(target, page=form).text
    many = " ".join([api.send(1).json["id"]] * 41)
    assert "Enter at most 40 event IDs" in guest.post(target, page=form, event_ids=many).text
    assert "is not an event ID" in guest.post(target, page=form, event_ids="evt_1").text
    event = api.send(2).json["id"]
    assert event in guest.get(f"{form}?event={event}").html
    shown = guest.post(target, page=form, event_ids=event)
    assert "1 event , accepted from" in shown.text
    guest.post(f"/accounts/{account}/settings/erasures", page=form, event_ids=event, confirmed="1")
    wait_for(lambda: api.ok("GET", f"/v1/events/{event}")["erased_at"], "the event is erased")
    assert "No events to erase." in guest.post(target, page=form, event_ids=event).text
