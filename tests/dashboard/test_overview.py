"""How an account fares, in words and at a glance."""

from contextlib import closing

import pytest
from playwright.sync_api import Page, expect
from tests.dashboard.accessibility import check_accessibility
from tests.dashboard.browsing import LOOKS, Look, OpenPage, sideways
from tests.dashboard.visitors import bring, member
from tests.e2e.harness import Api, Server, wait_for
from tests.e2e.receiving import Receiver, answer


def sentence(server: Server, account: str) -> str:
    """What the overview says at its top, and of each problem."""
    page = member(server, account, "member").get(f"/accounts/{account}/overview")
    assert page.status == 200, page.html
    return page.text.partition("Last deliveries")[0]


def failing(api: Api, endpoint: str) -> bool:
    """Whether an endpoint fails by now."""
    return bool(api.ok("GET", f"/v1/endpoints/{endpoint}")["health"]["status"] == "failing")


def test_every_condition_has_its_sentence(server: Server) -> None:
    account, api = server.account()
    assert "Nobody is told of anything yet: this account has no endpoint." in sentence(server, account)
    with closing(Receiver()) as receiver:
        good, bad = (api.endpoint(receiver.url(path, answer(code))) for path, code in (("/good", 204), ("/bad", 404)))
        assert "All is well: no endpoint fails." in sentence(server, account)

        api.send(1)
        wait_for(lambda: failing(api, bad["id"]), "the endpoint fails")
        told = sentence(server, account)
        assert "Something needs you: 1 of 2 endpoints is failing." in told
        assert "Your server answered 404: nothing is at this path." in told
        assert "Will be disabled" in told

        api.ok("POST", f"/v1/endpoints/{bad['id']}/disable")
        told = sentence(server, account)
        assert "Something needs you: 1 of 2 endpoints is disabled and gets nothing." in told
        assert "An operator of this service switched it off." in told

        api.ok("DELETE", f"/v1/endpoints/{bad['id']}")
        api.ok("POST", f"/v1/endpoints/{good['id']}/pause")
        assert "Every endpoint is paused" in sentence(server, account)
        api.send(2)
        wait_for(lambda: "Held 1 delivery" in sentence(server, account), "the delivery is held")

        api.ok("POST", f"/v1/endpoints/{good['id']}/enable", {"held": "keep"})
        told = sentence(server, account)
        assert "No endpoint fails, but 1 holds deliveries until somebody decides about them." in told
        assert "Held 1 delivery, kept until you enable it again, with another choice" in told


def test_what_happens_shows_without_loading_the_page_again(server: Server, page: Page) -> None:
    account, api = server.account()
    with closing(Receiver()) as receiver:
        api.endpoint(receiver.url("/good", answer(204)))
        bring(page, member(server, account, "member"))
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        before = page.get_by_role("region", name="Last deliveries").get_by_role("row")
        expect(before).to_have_count(2)

        api.send(1)

        row = before.filter(has_text="test.numbered")
        expect(row).to_have_count(1)
        expect(row).to_contain_text("delivered")


def test_texts_of_others_are_shown_as_texts(server: Server) -> None:
    account, api = server.account("<script>1</script>")
    endpoint = api.endpoint("http://127.0.0.1:9/?a=<b>", description="<img src=x onerror=1>")
    api.send(1)
    wait_for(lambda: failing(api, endpoint["id"]), "the endpoint fails")
    visitor = member(server, account, "member")
    text = visitor.get(f"/accounts/{account}/overview").html

    assert "<script>1" not in text
    assert "<img" not in text
    assert "&lt;img src=x onerror=1&gt;" in text


def test_an_account_sees_nothing_of_another(server: Server) -> None:
    other, api = server.account("Other")
    api.endpoint("http://127.0.0.1:9/other")
    api.send(1)
    account, _ = server.account()
    visitor = member(server, account, "admin")
    assert visitor.get(f"/accounts/{other}/overview").status == 404
    assert "127.0.0.1:9/other" not in visitor.get(f"/accounts/{account}/overview").html


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
def test_everybody_can_use_the_page(server: Server, open_page: OpenPage, look: Look) -> None:
    account, api = server.account()
    page = open_page(look)
    bring(page, member(server, account, "member"))
    expect(page.get_by_role("main").get_by_role("link", name="Get started")).to_have_count(2)
    check_accessibility(page)

    with closing(Receiver()) as receiver:
        api.endpoint(receiver.url("/good", answer(204)))
        bad = api.endpoint(receiver.url("/" + "long" * 40, answer(500)), description="The " + "very" * 30 + " old one")
        api.send(1)
        wait_for(lambda: failing(api, bad["id"]), "the endpoint fails")
        page.reload()
        expect(page.get_by_text("is failing")).to_be_visible()
        check_accessibility(page)
        assert sideways(page) <= 0
