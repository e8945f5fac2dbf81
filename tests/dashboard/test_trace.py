"""The Trace page for operators."""

import re
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Page
from tests.dashboard.operators import sign_in_operator
from tests.dashboard.page_checks import check_page
from tests.dashboard.visitors import PageResponse, member, operator
from tests.e2e.harness import OPERATOR_KEY, Api, Server, deliveries_of, settled, wait_for
from tests.e2e.receiving import Receiver

TYPE = "movement.analytics.created"
NOWHERE = "http://127.0.0.1:1/hook?x=<script>alert(1)</script>"


def traced(server: Server, text: str) -> PageResponse:
    """Return the trace of an ID."""
    return operator(server).get(f"/operator/trace?id={text}")


def failed(server: Server) -> tuple[str, Api, dict[str, Any]]:
    """Return an account with a failed delivery: its ID, a client, and the delivery."""
    account, _ = server.account("Rapids <b>Academy</b>")
    acting = server.api(OPERATOR_KEY, account)
    acting.endpoint(NOWHERE)
    acting.endpoint("http://127.0.0.1:1/other", event_types=["export.*"])
    event = acting.ok("POST", "/v1/events", {"type": TYPE, "data": {"object": {"n": 1}}})

    def find_failed() -> Any:
        [delivery] = acting.ok("GET", f"/v1/events/{event['id']}/deliveries")["data"]
        return delivery if delivery["status"] == "failed" else None

    delivery: dict[str, Any] = wait_for(find_failed, "the delivery has failed")
    return account, acting, delivery


def test_every_id_of_a_delivery_finds_its_trace(server: Server) -> None:
    account, acting, delivery = failed(server)
    attempt = acting.ok("GET", f"/v1/deliveries/{delivery['id']}/attempts")["data"][0]
    for text in (delivery["event"], delivery["id"], attempt["id"]):
        page = traced(server, text)
        assert f"{TYPE} for Rapids <b>Academy</b>" in page.text
        assert "<b>Academy" not in page.html
        assert "<script>alert" not in page.html
        assert "1 delivery created. Endpoints without a delivery: 1 (not subscribed)." in page.text
        assert page.text.count("· attempt ") == 5
        assert f'href="/accounts/{account}/deliveries/{delivery["id"]}"' in page.html
        assert f'href="/accounts/{account}/events/{delivery["event"]}"' in page.html
        assert ("matches your search" in page.text) == (text != delivery["event"])


def test_timestamps_in_sentences_are_time_elements(server: Server, shared_receiver: Receiver) -> None:
    account, _ = server.account()
    acting = server.api(OPERATOR_KEY, account)
    acting.endpoint(shared_receiver.url("/told"))
    event = acting.send(1).json["id"]
    [delivery] = deliveries_of(acting, event)
    settled(acting, delivery["id"])
    page = traced(server, event)
    assert 'was delivered at <time datetime="' in page.html
    assert not re.search(r"\d\.\d{3}Z", page.text)


def test_an_idempotency_key_finds_its_event_without_its_body(server: Server) -> None:
    account, _ = server.account()
    acting = server.api(OPERATOR_KEY, account)
    name = f"athlete-{uuid4()}"
    key = f"order/{uuid4()}"
    acting.ok("POST", "/v1/events", {"type": TYPE, "data": {"object": {"name": name}}, "idempotency_key": key})
    page = operator(server).get("/operator/trace?id=" + key.replace("/", "%2F"))
    assert page.status == 200
    assert "Accepted" in page.text
    assert name not in page.html


def test_an_id_in_two_accounts_shows_both_events(server: Server) -> None:
    event_id = str(uuid4())
    for name in ("Twin one", "Twin two"):
        account, _ = server.account(name)
        acting = server.api(OPERATOR_KEY, account)
        acting.ok("POST", "/v1/events", {"id": event_id, "type": TYPE, "data": {"object": {"id": "s_1"}}})
    page = traced(server, event_id)
    assert "2 accounts have an event with this ID or idempotency key." in page.text
    assert f"{TYPE} for Twin one" in page.text
    assert f"{TYPE} for Twin two" in page.text


def test_endpoints_accounts_and_replays_are_found(server: Server) -> None:
    account, acting, delivery = failed(server)
    replay = acting.ok("POST", "/v1/replays", {"endpoint": delivery["endpoint"], "rate_per_second": 1})
    page = traced(server, delivery["endpoint"])
    assert "Latest deliveries" in page.text
    assert f'href="/operator/trace?id={delivery["id"]}"' in page.html
    page = traced(server, account)
    assert "Latest events" in page.text
    assert f'href="/operator/trace?id={delivery["event"]}"' in page.html
    page = traced(server, replay["id"])
    assert f'href="/accounts/{account}/replays/{replay["id"]}"' in page.html


def test_deleted_objects_are_traced_without_links_to_their_pages(server: Server) -> None:
    account, acting, delivery = failed(server)
    acting.ok("DELETE", f"/v1/endpoints/{delivery['endpoint']}")
    page = traced(server, delivery["endpoint"])
    assert "Deleted" in page.text
    assert f'href="/operator/trace?id={delivery["id"]}"' in page.html
    assert f"/endpoints/{delivery['endpoint']}" not in page.html
    server.api().ok("DELETE", f"/v1/accounts/{account}")
    for text in (account, delivery["endpoint"], delivery["id"]):
        page = traced(server, text)
        assert page.status == 200
        assert f'href="/accounts/{account}' not in page.html


@pytest.mark.parametrize(
    "text", ["nothing", "ep_" + "0" * 32, "%00", "dlv_" + "0" * 44, "x" * 400, "01985aa0-0000-7000-8000-000000000000"]
)
def test_an_unknown_id_is_not_found(server: Server, text: str) -> None:
    page = traced(server, text)
    assert page.status == 404
    assert "No matching objects" in page.text


def test_only_operators_can_trace(server: Server) -> None:
    account, _, delivery = failed(server)
    page = member(server, account).get(f"/operator/trace?id={delivery['id']}")
    assert page.status == 404
    assert TYPE not in page.html


def test_an_operator_opens_an_endpoint_from_a_trace(server: Server, page: Page) -> None:
    _, _, delivery = failed(server)
    sign_in_operator(page).goto("/operator/trace")
    page.get_by_label("ID of an event").fill(delivery["id"])
    page.get_by_role("button", name="Search").click()
    page.get_by_role("heading", name="Accepted").wait_for()
    check_page(page)
    page.get_by_text("Endpoints without a delivery", exact=True).click()
    page.get_by_role("link", name="http://127.0.0.1:1/other").click()
    page.wait_for_url("**/accounts/*/endpoints/*")
    page.get_by_text("You are viewing this account as an operator.").wait_for()
