"""The search box: one hit opens its page, several are listed, and members find nothing of other accounts."""

import re
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect
from tests.dashboard.browsing import DESKTOP, PHONE, set_screen
from tests.dashboard.visitors import Guest, PageResponse, member, operator
from tests.e2e.harness import TYPE, Api, Server, settled
from tests.e2e.receiving import Receiver

UNSAFE = "<script>alert(1)</script>"


class Searched:
    """An account with an endpoint, and an event about an object with one settled delivery."""

    def __init__(self, server: Server, url: str, object_id: str, name: str = "Rapids Academy") -> None:
        self.account, api = server.account(name)
        self.api: Api = api
        self.endpoint = api.endpoint(url, event_types=[TYPE])["id"]
        self.event = api.ok(
            "POST", "/v1/events", {"type": TYPE, "data": {"object": {"id": object_id}}},
            idempotency_key=f"key-{object_id}",
        )["id"]  # fmt: skip
        [delivery] = api.ok("GET", f"/v1/events/{self.event}/deliveries")["data"]
        self.delivery = str(delivery["id"])
        settled(api, self.delivery)

    def search(self, guest: Guest, text: str) -> PageResponse:
        """Search in the account."""
        return search(guest, f"/accounts/{self.account}", text)


def search(guest: Guest, area: str, text: str) -> PageResponse:
    """Search without following the redirect to a single hit."""
    return guest.get(f"{area}/search?{urlencode({'q': text})}", follow=False)


def only_hit(response: PageResponse) -> str:
    """Return the path of the only hit."""
    assert response.status == 303, response.text
    return str(response.headers["location"])


@pytest.fixture(scope="module")
def mine(server: Server, shared_receiver: Receiver) -> Searched:
    """An account."""
    return Searched(server, shared_receiver.url("/mine/hooks"), "athlete_mine")


@pytest.fixture(scope="module")
def theirs(server: Server, shared_receiver: Receiver) -> Searched:
    """Another account."""
    return Searched(server, shared_receiver.url("/theirs/hooks"), "athlete_theirs", "Otters of the North")


def test_a_single_hit_leads_to_its_page(server: Server, mine: Searched) -> None:
    guest = member(server, mine.account, "member")
    home = f"/accounts/{mine.account}"
    for text, path in {
        mine.event: f"{home}/events/{mine.event}",
        mine.event.replace("-", "")[:31]: f"{home}/events/{mine.event}",
        f"  {mine.event[:35].upper()} ": f"{home}/events/{mine.event}",
        mine.delivery: f"{home}/deliveries/{mine.delivery}",
        mine.delivery[:-3]: f"{home}/deliveries/{mine.delivery}",
        f"att_{mine.delivery[4:]}00000001": f"{home}/deliveries/{mine.delivery}",
        mine.endpoint: f"{home}/endpoints/{mine.endpoint}",
        mine.endpoint[:-4]: f"{home}/endpoints/{mine.endpoint}",
        "athlete_mine": f"{home}/events?object_id=athlete_mine",
    }.items():
        assert only_hit(mine.search(guest, text)) == path, text
    events = guest.get(f"{home}/events?object_id=athlete_mine")
    assert mine.event in events.html


def test_endpoints_are_found_by_a_part_of_their_url(server: Server, mine: Searched) -> None:
    guest = member(server, mine.account)
    [url] = {each["url"] for each in mine.api.ok("GET", "/v1/endpoints")["data"]}
    assert only_hit(mine.search(guest, url)) == f"/accounts/{mine.account}/endpoints/{mine.endpoint}"
    assert only_hit(mine.search(guest, "mine")) == f"/accounts/{mine.account}/endpoints/{mine.endpoint}"
    assert only_hit(mine.search(guest, url.upper()[:-2])) == f"/accounts/{mine.account}/endpoints/{mine.endpoint}"


def test_the_query_of_a_url_cannot_be_guessed_piece_by_piece(server: Server, shared_receiver: Receiver) -> None:
    url = shared_receiver.url("/tenant/hooks")
    tenant = Searched(server, f"{url}?token=sEcReT", "athlete_tenant", "Tenant")
    home = f"/accounts/{tenant.account}"
    guest, reader = member(server, tenant.account, "member"), operator(server)
    for text, is_found in {url: True, f"{url}?token=sEcReT": True, f"{url}?token=s": False}.items():
        query = urlencode({"q": text, "text": text, "endpoint": text, "search": text, "filter": "all"})
        assert (tenant.search(guest, text).status == 303) is is_found, text
        assert (search(reader, "/operator", text).status == 303) is is_found, text
        assert (guest.get(f"{home}/deliveries?{query}").status == 200) is is_found, text
        for page in (guest.get(f"{home}/endpoints?{query}"), reader.get(f"/operator/endpoints?{query}")):
            assert (tenant.endpoint in page.html) is is_found, text


def test_several_hits_are_listed(server: Server, mine: Searched) -> None:
    guest = member(server, mine.account)
    other = mine.api.ok("POST", "/v1/events", {"type": TYPE, "data": {"n": 1}})["id"]
    both = mine.event[:8]
    assert other.startswith(both)
    page = mine.search(guest, both)
    assert page.status == 200
    assert f"/accounts/{mine.account}/events/{mine.event}" in page.html
    assert f"/accounts/{mine.account}/events/{other}" in page.html


@pytest.mark.parametrize("text", ["athlete_nobody", "zz", "dlv_", "ep_zz", "rpl_1", "\0", "a" * 400, UNSAFE, "0197"])
def test_without_a_hit_the_page_says_what_to_enter(server: Server, mine: Searched, text: str) -> None:
    page = mine.search(member(server, mine.account), text)
    assert page.status == 200
    assert "Nothing found for" in page.text
    assert "An object ID" in page.text
    assert UNSAFE not in page.html


def test_members_find_nothing_of_other_accounts(server: Server, mine: Searched, theirs: Searched) -> None:
    guest = member(server, mine.account, "owner")
    for text in (theirs.event, theirs.event[:35], theirs.delivery, theirs.endpoint, "/theirs/hooks", "athlete_theirs",
                 "key-athlete_theirs", "Otters of the North", theirs.account):  # fmt: skip
        page = mine.search(guest, text)
        assert page.status == 200, text
        assert "Nothing found" in page.text, text
    assert guest.get("/operator/search?q=athlete_theirs").status == 404
    assert guest.get(f"/accounts/{theirs.account}/search?q=athlete_theirs").status == 404


def test_operators_search_all_accounts(server: Server, theirs: Searched) -> None:
    guest = operator(server)
    for text, path in {
        theirs.event: f"/operator/trace?id={theirs.event}",
        theirs.delivery[:-2]: f"/operator/trace?id={theirs.delivery}",
        theirs.endpoint: f"/accounts/{theirs.account}/endpoints/{theirs.endpoint}",
        "athlete_theirs": "/operator/deliveries?object_id=athlete_theirs",
        "key-athlete_theirs": f"/operator/trace?id={theirs.event}",
        "otters of the": f"/operator/accounts/{theirs.account}",
        theirs.account: f"/operator/accounts/{theirs.account}",
    }.items():
        assert only_hit(search(guest, "/operator", text)) == path, text


def test_the_search_box_is_on_every_page(page: Page, server: Server, mine: Searched) -> None:
    member(server, mine.account).share_session(page)
    page.goto(f"/accounts/{mine.account}/overview")
    page.get_by_role("searchbox", name="Search").fill(mine.event)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"/events/{mine.event}$"))


def test_the_slash_key_focuses_the_search_box(page: Page, server: Server, mine: Searched) -> None:
    member(server, mine.account).share_session(page)
    page.goto(f"/accounts/{mine.account}/events")
    field = page.get_by_role("searchbox", name="Search")
    page.get_by_label("Object ID", exact=True).press("/")
    expect(field).not_to_be_focused()
    page.locator("h1").click()
    for screen in (DESKTOP, PHONE):
        set_screen(page, screen)
        # The menu with the field closes after the screen has become narrow.
        expect(field).to_be_visible(visible=screen is DESKTOP)
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("/")
        expect(field).to_be_focused()
    expect(field).to_have_value("")
