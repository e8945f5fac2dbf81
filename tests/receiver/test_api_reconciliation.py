"""Reconciliation with both clients: every event in order, from a stored cursor."""

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest

from uplift_webhooks.api import ApiError, AsyncClient, Client, Page

from .scripted_api import ScriptedApi, json_response, problem_response


def _page(first: int, count: int, *, more: bool, kind: str = "movement.analytics.created") -> bytes:
    data = [{"id": str(number), "type": kind} for number in range(first, first + count)]
    return json_response({"data": data, "next_cursor": f"after{first + count - 1}", "has_more": more})


def _ids(events: Any) -> list[str]:
    return [event["id"] for event in events]


def test_events_are_returned_in_order_until_the_last_page(api: ScriptedApi, client: Client) -> None:
    api.script = [_page(1, 2, more=True), _page(3, 0, more=True), _page(3, 1, more=False)]
    run = client.reconcile(created_after="2026-01-01T00:00:00Z")

    assert _ids(run) == ["1", "2", "3"]

    assert run.cursor == "after3"
    first = "/v1/events?order=asc&limit=200&created_after=2026-01-01T00%3A00%3A00Z"
    assert [request.target for request in api.requests] == [first, f"{first}&cursor=after2", f"{first}&cursor=after2"]


def test_an_interruption_in_the_first_page_begins_again(api: ScriptedApi, client: Client) -> None:
    api.script = [_page(1, 2, more=False)] * 2
    run = client.reconcile()
    next(iter(run))
    stored = run.cursor or ""  # as in the documentation

    assert _ids(client.reconcile(stored)) == ["1", "2"]

    assert [request.target for request in api.requests] == ["/v1/events?order=asc&limit=200"] * 2


@pytest.mark.parametrize("handled", range(6))
def test_resume_from_a_stored_cursor_loses_no_event(api: ScriptedApi, client: Client, handled: int) -> None:
    api.script = [_page(1, 3, more=True), _page(4, 2, more=True)]
    run = client.reconcile("after0")
    stored = run.cursor

    for _ in islice(run, handled):
        stored = run.cursor

    last_of_a_page_done = {3: "after3", 4: "after3", 5: "after5"}
    assert stored == last_of_a_page_done.get(handled, "after0")


def test_the_cursor_advances_past_unmatched_events(api: ScriptedApi, client: Client) -> None:
    api.script = [_page(1, 3, more=True, kind="athlete.created"), _page(4, 1, more=False)]
    run = client.reconcile("after0", ["movement.*", "export.completed"])

    assert _ids(run) == ["4"]
    assert run.cursor == "after4"
    assert "type=" not in api.requests[0].target


@pytest.mark.parametrize(
    ("types", "ids"),
    [
        (["a.b"], ["1"]),
        (["a.*"], ["1", "2"]),
        (["a.b", "c"], ["1", "3"]),
        ([], ["1", "2", "3"]),
        (None, ["1", "2", "3"]),
    ],
)
def test_types_are_names_and_patterns(api: ScriptedApi, client: Client, types: Any, ids: list[str]) -> None:
    kinds = ["a.b", "a.c.d", "c"]
    data = [{"id": str(number), "type": kind} for number, kind in enumerate(kinds, 1)]
    api.script = [json_response({"data": data, "next_cursor": "x", "has_more": False})]

    assert _ids(client.reconcile(types=types)) == ids
    assert ("type=a.b" in api.requests[0].target) == (types == ["a.b"])


def test_test_events_are_omitted_unless_included(api: ScriptedApi, client: Client) -> None:
    data = [
        {"id": "1", "type": "a.b", "test": False},
        {"id": "2", "type": "a.b", "test": True},
        {"id": "3", "type": "c"},
    ]
    api.script = [json_response({"data": data, "next_cursor": "x", "has_more": False})] * 3

    assert _ids(client.reconcile()) == ["1", "3"]
    assert _ids(client.reconcile(include_tests=True)) == ["1", "2", "3"]
    assert _ids(client.reconcile(types=["a.b"], include_tests=True)) == ["1", "2"]


def test_erased_events_are_omitted(api: ScriptedApi, client: Client) -> None:
    data = [
        {"id": "1", "type": "a.b", "erased_at": None},
        {"id": "2", "type": "a.b", "erased_at": "2026-01-01T00:00:00.000Z"},
    ]
    api.script = [json_response({"data": data, "next_cursor": "after2", "has_more": False})]
    run = client.reconcile()

    assert _ids(run) == ["1"]
    assert run.cursor == "after2"


def test_types_must_be_a_list(client: Client) -> None:
    with pytest.raises(ValueError, match="list of names"):
        client.reconcile(types="movement.*")


async def test_a_cancelled_page_request_loses_no_event(api: ScriptedApi) -> None:
    cancelled = threading.Event()

    def late(connection: socket.socket) -> None:
        assert cancelled.wait(10)
        connection.sendall(_page(2, 1, more=False))

    # With only one thread, `to_thread` below returns after the cancelled request has ended.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with AsyncClient(api.url, "sk_secret_of_the_test", timeout_seconds=5) as asynchronous:
        api.script = [_page(1, 1, more=True), late, _page(2, 1, more=False)]
        run = asynchronous.reconcile("after0")
        events = aiter(run)
        assert (await anext(events))["id"] == "1"
        waiting = asyncio.ensure_future(events.asend(None))
        while len(api.requests) < 2:
            await asyncio.sleep(0.005)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        cancelled.set()
        await asyncio.to_thread(int)
        assert waiting.cancelled()
        assert run.cursor == "after1"
        assert [event["id"] async for event in run] == ["2"]


async def test_the_async_client_has_the_same_behavior(api: ScriptedApi, client: Client) -> None:
    async with AsyncClient(api.url, "sk_secret_of_the_test", timeout_seconds=5) as asynchronous:
        api.script = [_page(1, 2, more=True), _page(3, 1, more=False)]
        run = asynchronous.reconcile(None, ["movement.*"])
        assert [event["id"] async for event in run] == ["1", "2", "3"]
        assert run.cursor == "after3"

        api.script = [json_response({"data": [{"id": 1}], "next_cursor": "a"}), json_response({"data": [{"id": 2}]})]
        assert [each["id"] async for each in asynchronous.deliveries.iterate(status="failed")] == [1, 2]

        api.script = [
            json_response({"id": "ep_1"}),
            json_response({"data": []}),
            json_response({"current": []}),
            json_response({"id": "x"}),
        ]
        assert await asynchronous.endpoints.pause("ep_1") == {"id": "ep_1"}
        assert await asynchronous.event_types.list(limit=3) == Page([], None, has_more=False)
        assert await asynchronous.source_ips() == {"current": []}
        assert await asynchronous.request("GET", "/v1/x", query={"a": 1}) == {"id": "x"}
        api.script = [json_response({"id": "x"})]
        assert json.loads(await asynchronous.content("/v1/x", query={"a": 1})) == {"id": "x"}

        api.script = [problem_response(404, "not_found")]
        with pytest.raises(ApiError, match="404 not_found"):
            await asynchronous.listen_sessions.get("lsn_1")
        api.script = [json_response({"id": "e", "body": {"id": "e", "type": "t", "data": {}}})]
        assert (await asynchronous.events.fetch("e")).type == "t"


def test_both_clients_have_the_same_calls(client: Client) -> None:
    asynchronous = AsyncClient("http://127.0.0.1:9")

    def calls(one: object) -> set[str]:
        return {name for name in dir(one) if not name.startswith("_")}

    assert calls(client) == calls(asynchronous)
