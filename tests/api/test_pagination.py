"""Pages of all lists, in ascending and descending order, and forward and backward."""

from typing import Any

import pytest

from uplift_server.api.app import document
from uplift_server.core.lifecycle import Status

from .test_deliveries import Owner

LISTS = (
    "/v1/accounts", "/v1/accounts/{account}/invitations", "/v1/accounts/{account}/keys",
    "/v1/accounts/{account}/portal-links", "/v1/audit-log",
    "/v1/deliveries", "/v1/endpoints", "/v1/endpoints/{endpoint}/deliveries", "/v1/event-types", "/v1/events",
    "/v1/events/{event}/deliveries", "/v1/listen-sessions", "/v1/rejected-events", "/v1/replays",
)  # fmt: skip


@pytest.fixture(scope="module")
def owner(server: Any) -> Owner:
    """An account with several objects of each kind."""
    owner = Owner(server)
    for number in range(3):
        server.operator.put(f"/v1/event-types/paged.n{number}", {"description": "x"})
        server.operator.post(
            f"/v1/accounts/{owner.account}/members", {"email": f"{number}@example.com", "role": "member"}
        )
        server.operator.post(f"/v1/accounts/{owner.account}/portal-links", {})
        server.account()
        server.owner(owner.account)
        owner.failed()
        server.reject(owner.account)
        owner.client.post("/v1/listen-sessions", {})
        owner.client.post("/v1/replays", {"endpoint": owner.new_endpoint()})
    return owner


def test_every_list_has_an_order() -> None:
    for path, methods in document()["paths"].items():
        names = {each["name"] for each in methods.get("get", {}).get("parameters", ())}
        assert ("cursor" in names) == ("order" in names), path


def key_of(item: dict[str, Any]) -> str:
    """Return a text that identifies an item of a list."""
    return str(item.get("id") or item.get("name") or item)


def walk(client: Any, path: str, cursor: str | None, which: str) -> tuple[list[list[str]], str | None]:
    """Follow the cursors in the field `which`. Return the items on each page, and the opposite cursor of the last."""
    pages: list[list[str]] = []
    while True:
        page = client.get(f"{path}&cursor={cursor}" if cursor else path).json
        pages.append([key_of(each) for each in page["data"]])
        cursor = page[which]
        if cursor is None or page.get("has_more") is False:
            return pages, page["prev_cursor" if which == "next_cursor" else "next_cursor"]


@pytest.mark.parametrize("path", LISTS)
def test_a_list_is_read_in_both_orders_and_directions(server: Any, owner: Owner, path: str) -> None:
    client = owner.client
    if path.startswith(("/v1/accounts", "/v1/event-types")):
        client = server.operator
    endpoints = {owner.endpoint, owner.new_endpoint(), owner.new_endpoint()}
    event = server.event(owner.account, dict.fromkeys(endpoints, Status.HELD))
    path = path.format(account=owner.account, endpoint=owner.endpoint, event=event)
    found = {}
    for order in ("desc", "asc"):
        forward, back_cursor = walk(client, f"{path}?limit=2&order={order}", None, "next_cursor")
        items = [each for page in forward for each in page]
        backward, _ = walk(client, f"{path}?limit=2&order={order}", back_cursor, "prev_cursor")
        assert [each for page in backward[::-1] for each in page] == items[: len(items) - len(forward[-1])]
        assert all(len(page) == 2 for page in backward)
        assert len(items) == len(set(items)) >= 3
        found[order] = items
    assert found["asc"] == found["desc"][::-1]


def test_pages_keep_their_items_while_objects_are_created(server: Any) -> None:
    """Objects that were created later appear on pages before the first page that was read."""
    owner = Owner(server)
    old = [owner.delivery() for _ in range(4)]
    first = owner.client.get("/v1/deliveries?limit=2&status=pending").json
    assert first["prev_cursor"] is None
    new = [owner.delivery() for _ in range(3)]

    def ids_on(cursor: str) -> tuple[list[str], Any]:
        page = owner.client.get(f"/v1/deliveries?limit=2&status=pending&cursor={cursor}").json
        return [each["id"] for each in page["data"]], page

    second_ids, second = ids_on(first["next_cursor"])
    assert [each["id"] for each in first["data"]] + second_ids == old[::-1]
    again_ids, again = ids_on(second["prev_cursor"])
    assert again_ids == [each["id"] for each in first["data"]]
    assert ids_on(again["next_cursor"])[0] == second_ids
    newer_ids, newer = ids_on(again["prev_cursor"])
    newest_ids, newest = ids_on(newer["prev_cursor"])
    assert newest_ids + newer_ids == new[::-1]
    assert newest["prev_cursor"] is None


def test_an_empty_page_leads_back(server: Any) -> None:
    owner = Owner(server)
    event = server.event(owner.account)
    end = owner.client.get("/v1/events?order=asc").json["next_cursor"]
    empty = owner.client.get(f"/v1/events?order=asc&cursor={end}").json
    assert empty["data"] == []
    back = owner.client.get(f"/v1/events?order=asc&cursor={empty['prev_cursor']}").json
    assert back["data"][-1]["id"] == event
    assert back["prev_cursor"] is None
    assert owner.client.get(f"/v1/deliveries?cursor={empty['prev_cursor']}").problems == {("cursor", "cursor_invalid")}
