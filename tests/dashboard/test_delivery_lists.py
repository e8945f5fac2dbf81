"""Lists of deliveries: filters in the URL, isolation of accounts, and all accounts for operators."""

import shlex
from html import unescape

import pytest
from tests.dashboard.routes import links
from tests.dashboard.visitors import member, operator
from tests.e2e.harness import TYPE, Api, Server, settled
from tests.e2e.receiving import Receiver

UNSAFE = "<script>alert(1)</script>"


def sent(api: Api, object_id: str) -> str:
    """Send an event about an object, and return the ID of its settled delivery."""
    event = api.ok("POST", "/v1/events", {"type": TYPE, "data": {"object": {"id": object_id}}})["id"]
    [delivery] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
    settled(api, delivery["id"])
    return str(delivery["id"])


def test_the_filters_of_the_url_find_deliveries(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    endpoint = api.endpoint(receiver.url("/a"), event_types=[TYPE])
    first, second = sent(api, "athlete_1"), sent(api, "athlete_2")
    guest = member(server, account, "member")
    path = f"/accounts/{account}/deliveries"
    page = guest.get(path)
    assert page.status == 200
    assert first in page.html
    assert second in page.html
    assert f'href="{path}"' in page.html
    found = guest.get(f"{path}?object_id=athlete_1&status=delivered&status=failed&endpoint={endpoint['id']}")
    assert [first in found.html, second in found.html] == [True, False]
    assert "athlete_1" in found.text
    assert f"?status=delivered&status=failed&endpoint={endpoint['id']}&object_id=athlete_1" in unescape(found.html)
    assert shlex.join(["uplift", "deliveries", "list", "--status", "delivered", "--status", "failed"]) in found.text
    for query in ("status_code=404", "outcome=tls_error", "status=failed", "type=webhook.created&object_id=athlete_1"):
        nothing = guest.get(f"{path}?{query}")
        assert "No matching deliveries" in nothing.text
        assert first not in nothing.html
    assert first in guest.get(f"{path}?status_code=4xx%202xx&type={TYPE}&outcome=delivered").html


def test_test_deliveries_are_hidden_by_default(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    endpoint = api.endpoint(receiver.url("/a"), event_types=[TYPE])
    test = api.ok("POST", f"/v1/endpoints/{endpoint['id']}/test", {})
    guest = member(server, account)
    path = f"/accounts/{account}/deliveries"
    assert test["delivery"] not in guest.get(path).html
    live = api.ok("GET", "/v1/deliveries?test=false")["data"][0]["id"]
    assert [each in guest.get(f"{path}?tests=1").html for each in (test["delivery"], live)] == [True, True]
    only = guest.get(f"{path}?tests=only")
    assert [each in only.html for each in (test["delivery"], live)] == [True, False]
    assert "· Test" in only.text


def test_operators_find_deliveries_of_all_accounts(server: Server, receiver: Receiver) -> None:
    accounts = [server.account(f"Herons {number}") for number in (1, 2)]
    deliveries = []
    for number, (_, api) in enumerate(accounts):
        api.endpoint(receiver.url(f"/herons/{number}"), event_types=[TYPE])
        deliveries.append(sent(api, "shared_object"))
    guest = operator(server)
    page = guest.get("/operator/deliveries?object_id=shared_object")
    assert all(each in page.html for each in deliveries)
    assert "Herons 2" in page.text
    assert "uplift-server deliveries list --object-id shared_object" in page.text
    for query in ("account=herons%202", f"account={accounts[1][0]}", "endpoint=/herons/1"):
        one = guest.get(f"/operator/deliveries?object_id=shared_object&{query}")
        assert [each in one.html for each in deliveries] == [False, True], query
    assert "Enter the account ID" in guest.get("/operator/deliveries?account=herons").text
    assert member(server, accounts[0][0]).get("/operator/deliveries").status == 404


def test_members_do_not_find_deliveries_of_other_accounts(server: Server, receiver: Receiver) -> None:
    (mine, _), (theirs, api) = server.account(), server.account()
    endpoint = api.endpoint(receiver.url("/theirs"), event_types=[TYPE])
    delivery = sent(api, "private_object")
    guest = member(server, mine)
    path = f"/accounts/{mine}/deliveries"
    assert delivery not in guest.get(f"{path}?object_id=private_object").html
    for query in (f"endpoint={endpoint['id']}", "endpoint=/theirs", f"account={theirs}"):
        page = guest.get(f"{path}?{query}")
        assert delivery not in page.html
    assert "The endpoint does not exist" in guest.get(f"{path}?endpoint={endpoint['id']}").text


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("status=lost", "Use one or more of pending, delivered"),
        ("outcome=lost", "A value is not allowed"),
        ("status_code=600", "is not a status code"),
        ("type=no.such", "The event type no.such does not exist"),
        ("endpoint=no.such.host", "No endpoint has this text in its URL"),
        (f"object_id={'a' * 129}", "at most 128 characters"),
        ("created_after=yesterday", "Enter a UTC timestamp"),
        ("cursor=nonsense", "The cursor does not belong to this list"),
        ("type=none&" * 101, "Choose at most 100 values"),
        ("status=failed&" * 101, "Choose at most 100 values"),
        ("status_code=404+" + "500+" * 100, "Choose at most 100 values"),
        (
            f"status={UNSAFE}&type={UNSAFE}&endpoint={UNSAFE}&object_id={UNSAFE}&status_code={UNSAFE}",
            "not a status code",
        ),
    ],
)
def test_an_invalid_filter_shows_an_error(server: Server, query: str, message: str) -> None:
    account, _ = server.account()
    page = member(server, account).get(f"/accounts/{account}/deliveries?{query}")
    assert page.status == 422
    assert message in page.text
    assert UNSAFE not in page.html


def test_the_next_page_keeps_the_filters(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    api.endpoint(receiver.url("/a"), event_types=[TYPE])
    deliveries = [sent(api, "many") for _ in range(26)]
    guest = member(server, account)
    first = guest.get(f"/accounts/{account}/deliveries?object_id=many&status=delivered")
    older = next(each for each in links(first.html) if "cursor=" in each)
    assert "object_id=many&status=delivered" in older
    second = guest.get(older)
    assert [deliveries[0] in first.html, deliveries[0] in second.html] == [False, True]
    assert deliveries[25] not in second.html


def test_matching_deliveries_are_resent_once_after_a_preview(server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    api.endpoint(receiver.url("/a"), event_types=[TYPE])
    sent(api, "again")
    sent(api, "other")
    guest = member(server, account, "manager")
    path = f"/accounts/{account}/deliveries"
    query = "status=delivered&object_id=again"
    assert f"{path}/resend?{query}" in unescape(guest.get(f"{path}?{query}").html)
    preview = guest.get(f"{path}/resend?{query}")
    assert "1 delivered delivery" in preview.text
    assert ">Resend deliveries</button>" in preview.html
    fields = {"status": "delivered", "object_id": "again", "rate_per_second": "10", "once": "a" * 32}
    for _ in range(2):
        started = guest.post(f"{path}/resend", page=f"{path}/resend?{query}", **fields)
        assert "Resend started: 1 delivery to 1 endpoint." in started.text
    [replay] = api.ok("GET", "/v1/replays")["data"]
    assert (replay["object_id"], replay["status"], replay["total"]) == ("again", ["delivered"], 1)
    for rate in ("0", "9" * 5000):
        rejected = guest.post(f"{path}/resend", page=f"{path}/resend?{query}", **{**fields, "rate_per_second": rate})
        assert "Enter a rate" in rejected.problem
    assert member(server, account, "member").get(f"{path}/resend?{query}").status == 403
    assert "No failed delivery matches the filters." in guest.get(f"{path}/resend?object_id=none").text
    assert "Resend matching failed deliveries" in guest.get(f"{path}?object_id=again").text
    assert "Resend matching" not in guest.get(f"{path}?status=pending").text
    # A resend does not include test deliveries.
    assert "Resend matching" not in guest.get(f"{path}?{query}&tests=only").text
    assert guest.get(f"{path}/resend?status=pending").status == 422
