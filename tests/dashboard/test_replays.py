"""The pages of replays: preview, start and control."""

from urllib.parse import urlencode

from playwright.sync_api import Page, expect
from tests.dashboard.page_checks import check_page
from tests.dashboard.routes import forms
from tests.dashboard.visitors import Guest, PageResponse, member, open_overview, operator
from tests.e2e.harness import TYPE, Api, Server, settled, wait_for
from tests.e2e.receiving import Receiver


def delivered(api: Api, receiver: Receiver, count: int, path: str = "/hook") -> str:
    """Return the ID of an endpoint with `count` delivered events."""
    endpoint: str = api.endpoint(receiver.url(path), event_types=[TYPE], description="Main")["id"]
    events = [{"type": TYPE, "data": {"number": number}} for number in range(count)]
    api.ok("POST", "/v1/events/batch", {"events": events})
    receiver.wait(path, count)
    for each in api.list_all(f"/v1/endpoints/{endpoint}/deliveries"):
        settled(api, each["id"])
    return endpoint


def preview(guest: Guest, account: str, **fields: str | list[str]) -> PageResponse:
    """Return the page with a preview."""
    return guest.get(f"/accounts/{account}/replays/new?{urlencode({'plan': '1', **fields}, doseq=True)}")


def start(guest: Guest, account: str, shown_preview: PageResponse) -> PageResponse:
    """Start the previewed replay."""
    [form] = [form for form in forms(shown_preview.html) if form.action == f"/accounts/{account}/replays"]
    fields: dict[str, str | list[str]] = {name: value for name, value in form.fields.items() if name != "csrf"}
    return guest.post(form.action, token=shown_preview.token, **fields)


def test_a_preview_counts_deliveries_and_starts_a_replay(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    endpoint = delivered(api, receiver, 5)
    guest = member(server, account, "manager")
    shown_preview = preview(guest, account, endpoint=endpoint, status="delivered", types=TYPE, rate_per_second="100")
    assert shown_preview.status == 200
    assert "5 deliveries to" in shown_preview.text
    assert "At 100 per second" in shown_preview.text
    assert '"rate_per_second": 100' in shown_preview.text
    assert "uplift-server" not in shown_preview.text
    console = preview(
        operator(server), account, endpoint=endpoint, status="delivered", types=TYPE, rate_per_second="100"
    )
    assert f"uplift-server replays create {endpoint} --status delivered --type {TYPE} --rate 100" in console.text
    assert len(receiver.on("/hook")) == 5
    page = start(guest, account, shown_preview)
    assert "Replay started." in page.text
    assert page.path.startswith(f"/accounts/{account}/replays/rpl_")
    receiver.wait("/hook", 10)
    replay = page.path.rpartition("/")[2]
    wait_for(lambda: api.ok("GET", f"/v1/replays/{replay}")["state"] == "completed", "the replay is completed")
    page = guest.get(page.path)
    assert "5 of 5" in page.text
    assert "Delivered 5" in page.text
    # Submitting the same form again does not start a second replay.
    repeated = start(guest, account, shown_preview)
    assert repeated.path == page.path
    assert len(receiver.on("/hook")) == 10
    replay_list = guest.get(f"/accounts/{account}/replays")
    assert replay in replay_list.html
    assert "Completed" in replay_list.text


def test_a_replay_sends_missing_events(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    delivered(api, receiver, 3)
    late = api.endpoint(receiver.url("/late"), event_types=[TYPE])["id"]
    [newest] = api.ok("GET", f"/v1/events?type={TYPE}&limit=1")["data"]
    guest = operator(server)
    event = guest.get(f"/accounts/{account}/events/{newest['id']}")
    assert "create a replay that includes missing events" in event.text
    form = guest.get(f"/accounts/{account}/replays/new?endpoint={late}&include_missing=1")
    assert 'name="include_missing" value="1" checked' in form.html
    shown_preview = preview(guest, account, endpoint=late, include_missing="1")
    assert "3 deliveries to" in shown_preview.text
    assert "0 existing, and 3 for events that the endpoint never received" in shown_preview.text
    assert f"uplift-server replays create {late} --only-missing" in shown_preview.text
    assert '"status": [], "include_missing": true' in shown_preview.text
    page = start(guest, account, shown_preview)
    # Several attempts are in flight at once, so the receiver sees them in any order.
    assert sorted(each.json["data"]["number"] for each in receiver.wait("/late", 3)) == [0, 1, 2]
    replay = page.path.rpartition("/")[2]
    wait_for(lambda: api.ok("GET", f"/v1/replays/{replay}")["state"] == "completed", "the replay is completed")
    assert "Missing events Included" in guest.get(page.path).text


def test_the_url_fills_the_form(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    endpoint = api.endpoint(receiver.url("/a"), description="Main")["id"]
    guest = member(server, account)
    page = guest.get(
        f"/accounts/{account}/replays/new?endpoint={endpoint}&status=cancelled&created_after=2026-01-31T12:00"
    )
    assert f'<option value="{endpoint}" selected>' in page.html
    assert 'value="cancelled" checked' in page.html
    assert 'value="failed" checked' not in page.html
    assert 'value="2026-01-31T12:00:00"' in page.html
    assert 'value="failed" checked' in guest.get(f"/accounts/{account}/replays/new").html


def test_an_invalid_preview_shows_all_errors(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    api.endpoint(receiver.url("/a"))
    guest = member(server, account)
    page = preview(guest, account, endpoint="ep_1", types="no.such", rate_per_second="0", created_after="<b>")
    assert page.status == 422
    for message in (
        "The endpoint does not exist.",
        "The list is empty.",
        "type matches no.such",
        "Enter a rate from 1 to 1000",
    ):
        assert message in page.text
    assert "Enter a UTC timestamp" in page.text
    rejected = guest.post(f"/accounts/{account}/replays", page=f"/accounts/{account}/replays/new", status="failed")
    assert rejected.status == 422
    assert "The field is required." in rejected.text


def test_a_preview_without_deliveries_cannot_be_started(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    endpoint = api.endpoint(receiver.url("/a"))["id"]
    page = preview(member(server, account), account, endpoint=endpoint, status="failed")
    assert "No matching deliveries." in page.text
    assert "Start replay" not in page.text


def test_a_replay_is_paused_resumed_and_cancelled(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    endpoint = delivered(api, receiver, 20)
    guest = member(server, account)
    page = start(guest, account, preview(guest, account, endpoint=endpoint, status="delivered", rate_per_second="1"))
    path = page.path
    assert "remaining" in page.text
    busy = preview(guest, account, endpoint=endpoint, status="delivered")
    second = start(guest, account, busy)
    assert second.status == 409
    assert "already has an unfinished replay" in second.text
    paused = guest.post(f"{path}/pause", page=path)
    assert "Replay paused." in paused.text
    assert "Resume" in paused.text
    resumed = guest.post(f"{path}/resume", page=path)
    assert "Replay resumed." in resumed.text
    api.ok("POST", f"/v1/endpoints/{endpoint}/pause")
    assert "Waiting: the endpoint is paused." in guest.get(path).text
    cancelled = guest.post(f"{path}/cancel", page=path)
    assert "Replay cancelled." in cancelled.text
    assert "Cancel replay" not in cancelled.text
    assert "cancelled" in guest.post(f"{path}/resume", page=path).problem


def test_members_see_replays_and_cannot_start_any(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    endpoint = delivered(api, receiver, 1)
    owner = member(server, account)
    page = start(owner, account, preview(owner, account, endpoint=endpoint, status="delivered"))
    guest = member(server, account, "member")
    replay_list = guest.get(f"/accounts/{account}/replays")
    assert page.path in replay_list.html
    assert "Create replay" not in replay_list.text
    assert guest.get(page.path).status == 200
    assert guest.get(f"/accounts/{account}/replays/new").status == 403
    assert guest.post(f"{page.path}/cancel", page=page.path).status == 403
    assert guest.post(f"/accounts/{account}/replays", page=page.path, endpoint=endpoint).status == 403


def test_a_replay_of_another_account_is_not_found(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    endpoint = delivered(api, receiver, 1)
    guest = member(server, account)
    page = start(guest, account, preview(guest, account, endpoint=endpoint, status="delivered"))
    stranger, _ = server.account("Another")
    other = member(server, stranger)
    path = page.path.replace(account, stranger)
    assert other.get(path).status == 404
    assert other.post(f"{path}/cancel", page=f"/accounts/{stranger}/replays").status == 404
    api_of_stranger = server.api(account=stranger)
    api_of_stranger.endpoint(receiver.url("/theirs"))
    rejected = preview(other, stranger, endpoint=endpoint, status="delivered")
    assert (rejected.status, "The endpoint does not exist." in rejected.text) == (422, True)


def test_timestamps_use_local_time_and_progress_updates_live(server: Server, receiver: Receiver, page: Page) -> None:
    account, api = server.account()
    endpoint = delivered(api, receiver, 3)
    open_overview(page, member(server, account))
    page.goto(f"/accounts/{account}/replays/new?endpoint={endpoint}&created_after=2026-01-31T12:00")
    # The time in Berlin is UTC plus 1 hour.
    expect(page.get_by_label("Accepted after (local time)")).to_have_value("2026-01-31T13:00")
    page.get_by_label("Delivered (the endpoint receives them again)").check()
    page.get_by_label("Failed", exact=True).uncheck()
    page.get_by_label("Event types").fill(TYPE)
    page.get_by_label("Maximum rate (per second)").fill("1")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("3 deliveries")).to_be_visible()
    assert "created_after=2026-01-31T12%3A00%3A00" in page.url
    check_page(page)
    page.get_by_role("button", name="Start replay").click()
    expect(page.get_by_text("3 of 3")).to_be_visible()
    expect(page.locator("#live .status.completed")).to_be_visible()
    check_page(page)
