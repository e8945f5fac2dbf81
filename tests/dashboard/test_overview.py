"""The Overview page."""

import re
from contextlib import closing
from html import unescape

from playwright.sync_api import Page, expect
from tests.dashboard.visitors import member, open_overview
from tests.e2e.harness import TYPE, Api, Server, settled, wait_for
from tests.e2e.receiving import Receiver, respond


def summary(server: Server, account: str) -> str:
    """Return the text of the health card and the open problems."""
    page = member(server, account, "member").get(f"/accounts/{account}/overview")
    assert page.status == 200, page.html
    return page.text.partition("Latest deliveries")[0]


def is_failing(api: Api, endpoint: str) -> bool:
    """Whether an endpoint is failing."""
    return bool(api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]["status"] == "failing")


def test_each_health_state_has_a_summary(server: Server) -> None:
    account, api = server.account()
    assert "No endpoints yet." in summary(server, account)
    with closing(Receiver()) as receiver:
        good = api.endpoint(receiver.url("/good"))
        # The server sends the registration event to each new endpoint.
        words = "No endpoints are failing, and no deliveries failed"
        wait_for(lambda: words in summary(server, account), "no endpoint is failing", within=60)

        bad = api.endpoint(receiver.url("/bad", respond(404)))
        api.send(1)
        wait_for(lambda: is_failing(api, bad["id"]), "the endpoint is failing")
        text = summary(server, account)
        assert "Action required: 1 of 2 endpoints is failing." in text
        assert "404: " in text
        # Failing endpoints of other tests can cause a mass failure on the shared server.
        assert "Will be disabled" in text or "mass failure" in text

        api.ok("POST", f"/v1/endpoints/{bad['id']}/disable")
        text = summary(server, account)
        assert "Action required: 1 of 2 endpoints is disabled." in text
        assert "An operator of this service disabled the endpoint." in text

        api.ok("DELETE", f"/v1/endpoints/{bad['id']}")
        api.ok("POST", f"/v1/endpoints/{good['id']}/pause")
        assert "All endpoints are paused" in summary(server, account)
        api.send(2)
        wait_for(lambda: "Held 1 delivery" in summary(server, account), "the delivery is held")

        api.ok("POST", f"/v1/endpoints/{good['id']}/enable", {"held": "keep"})
        text = summary(server, account)
        assert "Action required: 1 endpoint has held deliveries." in text
        assert "Held 1 delivery, kept until you release or drop them" in text


def test_held_deliveries_need_no_action_while_they_are_being_sent(server: Server) -> None:
    account, api = server.account()
    with closing(Receiver()) as receiver:
        endpoint = api.endpoint(receiver.url("/held"))["id"]
        api.ok("POST", f"/v1/endpoints/{endpoint}/pause")
        events = [{"type": TYPE, "data": {"number": number}} for number in range(500)]
        api.ok("POST", "/v1/events/batch", {"events": events})
        wait_for(lambda: "All endpoints are paused" in summary(server, account), "the endpoint is paused")
        api.ok("POST", f"/v1/endpoints/{endpoint}/enable", {"held": "send"})
        # The server sends 50 of them per second.
        text = summary(server, account)
    assert "The server is sending or dropping the held deliveries of 1 endpoint." in text
    assert "Release or drop" not in text


def test_statistics_are_shown_as_figures_and_a_chart(server: Server) -> None:
    account, api = server.account()
    with closing(Receiver()) as receiver:
        # Retries are due much later, so the failing deliveries stay pending.
        actions = (("/good", respond(204)), ("/bad", respond(503, retry_after="600")))
        good, bad = (api.endpoint(receiver.url(path, action)) for path, action in actions)
        api.ok("PATCH", f"/v1/endpoints/{bad['id']}", {"event_types": ["export.completed"]})
        for number in range(3):
            api.send(number)
        visitor = member(server, account, "member")
        overview = f"/accounts/{account}/overview"
        wait_for(lambda: "4 delivered" in visitor.get(overview).text, "the statistics include four deliveries")

        for period, words in (
            ("1h", "Last hour"),
            ("24h", "Last 24 hours"),
            ("7d", "Last 7 days"),
            ("30d", "Last 30 days"),
        ):
            page = visitor.get(f"{overview}?period={period}")
            assert words in page.text
            assert 'aria-label="Deliveries by status in the last ' in page.html
            assert "/v1/stats?period=" + period in page.text
        assert "First-attempt success rate 80.0" in page.text
        assert "Delivered 4 100% of completed deliveries" in page.text
        assert good["id"] in page.html


def test_failed_deliveries_are_shown_after_the_recovery(server: Server) -> None:
    account, api = server.account()
    with closing(Receiver()) as receiver:
        # The failed event causes five consecutive failures. Ten would open the circuit breaker.
        endpoint = api.endpoint(receiver.url("/x", respond(204)))
        wait_for(lambda: receiver.count("/x"), "the registration event")
        receiver.url("/x", respond(500))
        event = api.send(1).json["id"]
        [delivery] = api.ok("GET", f"/v1/events/{event}/deliveries")["data"]
        settled(api, delivery["id"])
        receiver.url("/x", respond(204))
        api.send(2)
        wait_for(lambda: not is_failing(api, endpoint["id"]), "the endpoint is healthy")
        text = "No endpoints are failing now, but"
        wait_for(lambda: text in summary(server, account), "the failure is counted")

        manager = member(server, account, "manager")
        overview = f"/accounts/{account}/overview"
        assert f"{overview}?period=24h&amp;status=failed#last" in manager.get(overview).html
        listed = manager.get(f"{overview}?status=failed").html
        assert delivery["id"] in listed
        assert listed.count('<td data-label="Status">') == listed.count('class="status failed"')
        assert "/replays/new" in listed
        [link] = re.findall(r'href="([^"]+)">View failed deliveries', manager.get(overview).html)
        assert "created_after=" in link
        assert delivery["id"] in manager.get(unescape(link)).html
        assert "/replays/new" not in member(server, account, "member").get(overview).html


def test_new_deliveries_appear_without_a_reload(server: Server, page: Page) -> None:
    account, api = server.account()
    with closing(Receiver()) as receiver:
        api.endpoint(receiver.url("/good", respond(204)))
        open_overview(page, member(server, account, "member"))
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        before = page.get_by_role("group", name="Latest deliveries").get_by_role("row")
        expect(before).to_have_count(2)

        api.send(1)

        row = before.filter(has_text="test.numbered")
        expect(row).to_have_count(1)
        expect(row).to_contain_text("Delivered")


def test_only_the_worst_problems_have_a_card(server: Server) -> None:
    account, api = server.account()
    made = [api.endpoint(f"http://127.0.0.1:9/{number}")["id"] for number in range(7)]
    for endpoint in made:
        api.ok("POST", f"/v1/endpoints/{endpoint}/pause")
    api.send(1)
    api.ok("POST", f"/v1/endpoints/{made[0]}/disable")
    visitor = member(server, account, "member")
    path = f"/accounts/{account}/overview"
    wait_for(lambda: visitor.get(path).html.count("2 deliveries held") == 2, "each endpoint holds two deliveries")

    page = visitor.get(path)
    assert page.html.count('<article class="card state') == 5
    assert page.text.index("Disabled since") < page.text.index("Paused since")
    assert all(f"/endpoints/{endpoint}" in page.html for endpoint in made)
    assert "1 of 7 endpoints is disabled" in page.text


def test_user_texts_are_escaped(server: Server) -> None:
    account, api = server.account("<script>1</script>")
    endpoint = api.endpoint("http://127.0.0.1:9/?a=<b>", description="<img src=x onerror=1>")
    api.send(1)
    wait_for(lambda: is_failing(api, endpoint["id"]), "the endpoint is failing")
    visitor = member(server, account, "member")
    text = visitor.get(f"/accounts/{account}/overview").html

    assert "<script>1" not in text
    assert "<img" not in text
    assert "&lt;img src=x onerror=1&gt;" in text


def test_another_account_is_not_visible(server: Server) -> None:
    other, api = server.account("Other")
    api.endpoint("http://127.0.0.1:9/other")
    api.send(1)
    account, _ = server.account()
    visitor = member(server, account, "admin")
    assert visitor.get(f"/accounts/{other}/overview").status == 404
    assert "127.0.0.1:9/other" not in visitor.get(f"/accounts/{account}/overview").html
