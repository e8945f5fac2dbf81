"""Single events and lists of events."""

import base64
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from uplift_server.core import ids
from uplift_server.core.lifecycle import Status
from uplift_server.store import cleanup, events
from uplift_server.store.schema import events as table

BASE = 1_800_000_000_000
"""Only the tests of this module create events after this time."""


def create_endpoint(client: Any) -> str:
    """Create an endpoint, and return its ID."""
    return str(client.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"])


def test_an_event_shows_its_envelope_and_counts(server: Any) -> None:
    """Lists omit the body. A single event includes it, with all numbers exactly as they were sent."""
    account = server.account()
    owner = server.owner(account)
    first, second = create_endpoint(owner), create_endpoint(owner)
    event = server.event(account, {first: Status.PENDING, second: Status.HELD}, created_at=BASE, expires_at=BASE + 5)
    shown = owner.get("/v1/events?created_after=2027-01-15T07:59:59Z").json["data"][0]
    assert shown == {
        "id": event,
        "type": "movement.analytics.created",
        "created_at": "2027-01-15T08:00:00.000Z",
        "api_version": "01/01/2022",
        "expires_at": "2027-01-15T08:00:00.005Z",
        "object_id": None,
        "ordering_key": None,
        "test": False,
        "deliveries": {"pending": 1, "delivered": 0, "failed": 0, "held": 1, "cancelled": 0},
        "erased_at": None,
    }
    one = owner.get(f"/v1/events/{event}")
    assert {name: value for name, value in one.json.items() if name != "body"} == shown
    assert one.json["body"]["created"] == BASE
    assert b'"data":{"object":{"n":1.0}}' in one.body
    assert owner.get(f"/v1/events/{event.upper()}").json["id"] == event

    pages = owner.get(f"/v1/events/{event}/deliveries?limit=1").json
    rest = owner.get(f"/v1/events/{event}/deliveries?limit=1&cursor={pages['next_cursor']}").json
    assert [each["endpoint"] for each in pages["data"] + rest["data"]] == [second, first]
    assert rest["next_cursor"] is None


def read_pages(client: Any, path: str) -> list[list[str]]:
    """Return the IDs on each page of a list."""
    pages = []
    cursor = ""
    while True:
        page = client.get(f"{path}{cursor}").json
        pages.append([each["id"] for each in page["data"]])
        if page["next_cursor"] is None:
            return pages
        cursor = f"&cursor={page['next_cursor']}"


def test_a_list_has_each_event_once_while_events_arrive(server: Any) -> None:
    """The list is ordered newest first."""
    account = server.account()
    owner = server.owner(account)
    expected = [server.event(account) for _ in range(25)]
    stop = threading.Event()

    def insert() -> None:
        while not stop.is_set():
            server.event(account)

    thread = threading.Thread(target=insert)
    thread.start()
    try:
        seen = [event for page in read_pages(owner, "/v1/events?limit=4") for event in page]
    finally:
        stop.set()
        thread.join()
    assert len(seen) == len(set(seen))
    assert [event for event in seen if event in expected] == expected[::-1]


def test_an_ascending_list_follows_new_events(server: Any) -> None:
    """Each page, even an empty one, has a cursor, and no event is missing."""
    account = server.account()
    owner = server.owner(account)
    empty = owner.get("/v1/events?order=asc").json
    assert (empty["data"], empty["has_more"]) == ([], False)
    cursor = empty["next_cursor"]
    sent, seen = [], []
    done = threading.Event()

    def insert() -> None:
        sent.extend(server.event(account) for _ in range(40))
        done.set()

    thread = threading.Thread(target=insert)
    thread.start()
    while True:
        finished = done.is_set()
        page = owner.get(f"/v1/events?order=asc&limit=3&cursor={cursor}").json
        seen.extend(each["id"] for each in page["data"])
        cursor = page["next_cursor"]
        assert cursor is not None
        if finished and not page["has_more"]:
            break
    thread.join()
    assert seen == sent
    again = owner.get(f"/v1/events?order=asc&cursor={cursor}").json
    assert (again["data"], again["has_more"]) == ([], False)
    last = server.event(account)
    assert [each["id"] for each in owner.get(f"/v1/events?order=asc&cursor={cursor}").json["data"]] == [last]


def test_events_are_filtered_by_type_and_time(server: Any) -> None:
    """Filters can be combined, in both sort orders. Time limits are exclusive."""
    account = server.account()
    owner = server.owner(account)
    at = BASE + 100_000_000
    names = ["movement.analytics.created", "athlete.updated", "movement.analytics.created"]
    events = [server.event(account, type_name=name, created_at=at + n * 1000) for n, name in enumerate(names)]
    texts = [owner.get(f"/v1/events/{event}").json["created_at"] for event in events]

    def listed(query: str) -> list[str]:
        return [each["id"] for each in owner.get(f"/v1/events?{query}").json["data"]]

    assert listed("type=athlete.updated") == [events[1]]
    assert listed("type=movement.analytics.created") == [events[2], events[0]]
    assert listed("type=movement.analytics.created&order=asc") == [events[0], events[2]]
    assert listed("type=export.completed") == []
    assert listed(f"created_after={texts[0]}") == [events[2], events[1]]
    assert listed(f"created_before={texts[2]}") == [events[1], events[0]]
    assert listed(f"created_after={texts[0]}&created_before={texts[2]}&order=asc") == [events[1]]
    assert listed(f"created_after={texts[2]}") == []
    assert listed("created_before=1999-01-01T00:00:00%2B02:00") == []
    spanning = server.operator.get(f"/v1/events?type=athlete.updated&created_after={texts[0]}").json["data"]
    assert [(each["id"], each["account"]) for each in spanning] == [(events[1], account)]


def test_values_of_one_filter_are_alternatives(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    account = server.account()
    owner = server.owner(account)
    names = ["movement.analytics.created", "athlete.updated", "export.completed"] * 2
    events = [server.event(account, type_name=name) for name in names]
    theirs = server.event(server.account())
    for rows in (20_000, 1):
        monkeypatch.setattr("uplift_server.store.events.WINDOW_EVENTS", rows)
        query = "/v1/events?type=athlete.updated&type=export.completed&limit=3"
        chosen = [each for each, name in zip(events, names, strict=True) if name != names[0]]
        assert [each for page in read_pages(owner, query) for each in page] == chosen[::-1]
        chosen = [events[0], events[4], theirs]
        query = f"/v1/events?id={chosen[0]}&id={chosen[1].upper()}&id={theirs}"
        assert read_pages(owner, query) == [[events[4], events[0]]]
        assert [each["id"] for each in owner.get(f"{query}&order=asc").json["data"]] == chosen[:2]
        assert [each["id"] for each in server.operator.get(query).json["data"]] == chosen[::-1]
        assert read_pages(owner, f"{query}&type=athlete.updated") == [[events[4]]]
    assert owner.get("/v1/events?id=x&type=no.such&type=athlete.updated").problems == {
        ("id", "id_invalid"),
        ("type", "event_type_unknown"),
    }


def test_a_list_with_bodies_has_the_bytes_of_each_envelope(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both sort orders, a page ends early if its bodies are too large."""
    account = server.account()
    owner = server.owner(account)
    events = [server.event(account) for _ in range(5)]
    single = {event: owner.get(f"/v1/events/{event}") for event in events}
    whole = owner.get("/v1/events?include=body")
    assert whole.json["data"] == [single[event].json for event in events[::-1]]
    assert all(response.body.partition(b'"body":')[2][:-1] in whole.body for response in single.values())
    assert "body" not in owner.get("/v1/events").json["data"][0]
    size = len(single[events[0]].body.partition(b'"body":')[2]) - 1
    for bytes_max, count in ((size - 1, 1), (2 * size, 2), (2 * size + 1, 2)):
        monkeypatch.setattr("uplift_server.store.events.PAGE_BODY_BYTES_MAX", bytes_max)
        pages = read_pages(owner, "/v1/events?include=body")
        assert [len(page) for page in pages] == [count] * (5 // count) + [1] * (5 % count)
        assert [each for page in pages for each in page] == events[::-1]
        page = owner.get("/v1/events?include=body&order=asc").json
        assert ([each["id"] for each in page["data"]], page["has_more"]) == (events[:count], True)
        rest = owner.get(f"/v1/events?include=body&order=asc&limit=1&cursor={page['next_cursor']}").json
        assert [each["id"] for each in rest["data"]] == [events[count]]
        assert owner.get(f"/v1/events?include=body&cursor={rest['prev_cursor']}").json["data"]
    assert owner.get("/v1/events?include=data").problems == {("include", "value_unknown")}


def test_events_of_a_deleted_type_keep_their_type_name(server: Any) -> None:
    """Single events, lists and filters still use the name."""
    account = server.account()
    owner = server.owner(account)
    server.operator.put("/v1/event-types/soon.gone", {"description": "x"})
    event = server.event(account, type_name="soon.gone")
    server.operator.delete("/v1/event-types/soon.gone")
    assert owner.get(f"/v1/events/{event}").json["type"] == "soon.gone"
    assert [each["id"] for each in owner.get("/v1/events?type=soon.gone").json["data"]] == [event]


def test_a_type_name_refers_to_its_latest_type(server: Any) -> None:
    """Retention deletes an earlier type of this name while the server is running."""
    account = server.account()
    (rule,) = (replace(rule, batch_rows=1000) for rule in cleanup.RETENTION_RULES if rule.name == "event_types")
    for newest in ("newest.once", "newest.twice"):
        server.operator.put("/v1/event-types/gone.twice", {"description": "x"})
        event = server.event(account, type_name="gone.twice")
        server.operator.put(f"/v1/event-types/{newest}", {"description": "x"})
        server.operator.delete("/v1/event-types/gone.twice")
        listed = server.owner(account).get("/v1/events?type=gone.twice").json["data"]
        assert [each["id"] for each in listed] == [event]
        number = ids.parse_uuid(event)
        server.run(lambda: server.database.write(lambda c: c.execute(sa.delete(table).where(table.c.id == number))))  # noqa: B023
        seen = server.run(
            lambda: server.database.read(lambda c: cleanup.find_expired(c, rule, before=2**60, after=None))
        )
        assert server.run(
            lambda: server.database.write(lambda c: cleanup.delete_expired(c, rule, seen.keys, before=2**60))  # noqa: B023 - run before the next turn
        )


def test_two_accounts_can_use_the_same_event_id(server: Any) -> None:
    """Each account sees its own event. An operator must name the account."""
    one, two = server.account(), server.account()
    shared_id = ids.uuid7(BASE, b"0123456789")
    event = server.event(one, event_id=shared_id)
    assert server.operator.get(f"/v1/events/{event}").json["account"] == one
    server.event(two, event_id=shared_id, type_name="athlete.updated")
    assert server.owner(one).get(f"/v1/events/{event}").json["type"] == "movement.analytics.created"
    assert server.owner(two).get(f"/v1/events/{event}").json["type"] == "athlete.updated"
    assert server.operator.get(f"/v1/events/{event}").code == "account_required"
    assert server.client(server.operator_key, two).get(f"/v1/events/{event}").json["type"] == "athlete.updated"


def test_all_problems_of_a_query_are_reported(server: Any) -> None:
    """Covers invalid, unknown and repeated parameters."""
    owner = server.owner(server.account())
    query = "limit=0&order=up&created_after=yesterday&created_before=2026-01-01&type=no.such&page=2&cursor=x"
    assert owner.get(f"/v1/events?{query}").problems == {
        ("limit", "out_of_range"),
        ("order", "value_unknown"),
        ("created_after", "instant_invalid"),
        ("created_before", "instant_invalid"),
        ("type", "event_type_unknown"),
        ("page", "unknown_field"),
        ("cursor", "cursor_invalid"),
    }
    assert owner.get("/v1/events?limit=1&limit=2").problems == {("limit", "repeated")}
    many = "&".join(f"{number:x}" for number in range(10_000))
    began = time.process_time()
    assert owner.get(f"/v1/events?{many}").status == 422
    assert time.process_time() - began < 0.5, "parameters are counted in linear time"
    assert owner.get("/v1/events?limit=ten").problems == {("limit", "type_number")}
    assert owner.get("/v1/events?limit=501").problems == {("limit", "out_of_range")}
    for path in ("/v1/endpoints", "/v1/deliveries", "/v1/event-types"):
        assert owner.get(f"{path}?cursor=AAAA&x=1").problems == {("cursor", "cursor_invalid"), ("x", "unknown_field")}


def test_a_cursor_does_not_reveal_the_number_of_events(server: Any) -> None:
    account = server.account()
    owner = server.owner(account)
    numbers = []
    for _ in range(2):
        event = server.event(account)
        cursor = owner.get("/v1/events?order=asc").json["next_cursor"]
        found = server.run(
            lambda event=event: server.database.read(lambda c: events.find(c, None, ids.parse_uuid(event)))
        )
        numbers.append((found[0].seq, base64.urlsafe_b64decode(cursor + "==")))
    assert numbers[1][0] == numbers[0][0] + 1
    for number, value in numbers:
        assert len(value) == 16
        assert number.to_bytes(8, "big") not in value
    assert numbers[0][1][8:15] != numbers[1][1][8:15]
