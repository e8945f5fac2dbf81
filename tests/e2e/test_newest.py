"""A receiver uses the library to keep the newest state of each object, despite kills of the server."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uplift_webhooks import Webhook
from uplift_webhooks.deduplication import EventInProgress, MemoryDeduplicator

from . import receiving
from .fleet import WITH_CLOCK_SKEW
from .harness import PROGRAM, TYPE, Api, Server, serving, wait_for
from .receiving import Action, Connection, Received, Receiver

BATCHES = 200
POSTS = 300
ATHLETES = 20
KILLED_AFTER = {70: 0, 150: -60_000, 290: -30_000, 420: 0}
"""The number of requests before each kill of the server, and the error of its clock after the restart, in ms."""


class Newest:
    """The newest state of each athlete. Every third event fails at first, so that it arrives after newer events."""

    def __init__(self) -> None:
        self.states: dict[str, int] = {}
        self._seen = MemoryDeduplicator()
        self._failed = set[str]()

    def action(self, secret: str) -> Action:
        webhook, accept = Webhook(secret), receiving.respond(204, b"")
        busy, fail = receiving.respond(409), receiving.respond(500)

        def act(connection: Connection, received: Received) -> bool:
            event = webhook.unwrap(received.body, received.headers)
            if int(event.id.replace("-", ""), 16) % 3 == 0 and event.id not in self._failed:
                self._failed.add(event.id)
                return fail(connection, received)
            try:
                with self._seen.newest(event) as newest:
                    if newest and event.type == TYPE:
                        self.states[event.data.object["id"]] = event.data.object["state"]
            except EventInProgress:
                return busy(connection, received)
            return accept(connection, received)

        return act


def test_the_newest_state_wins_through_kills(tmp_path: Path, receiver: Receiver) -> None:
    newest, expected, ids = Newest(), dict[str, int](), list[tuple[str, str]]()
    settings = {"UPLIFT_RETRY_SCHEDULE": ",".join(["200ms"] * 20), "UPLIFT_BREAKER_FAILURES": "0"}
    with serving(tmp_path / "data", **settings) as server:
        _, api = server.account()
        made = api.endpoint(receiver.url("/hook"), event_types=[TYPE], max_in_flight=64)
        receiver.url("/hook", newest.action(made["secret"]))
        for number, events in enumerate(_updates()):
            ids += [(each["created_at"], each["id"]) for each in _accepted(api, f"request-{number}", events)]
            expected |= {each["data"]["object"]["id"]: each["data"]["object"]["state"] for each in events}
            if number in KILLED_AFTER:
                server.kill()
                _restart(server, skew_ms=KILLED_AFTER[number])
        wait_for(lambda: newest.states == expected, "the newest state of each athlete arrives", 30)
        wait_for(lambda: not api.ok("GET", "/v1/deliveries?status=pending&limit=1")["data"], "all events arrive", 30)
        assert newest.states == expected
        assert ids == sorted(set(ids))
        assert len({event for _, event in ids}) == 2 * BATCHES + POSTS


def _updates() -> Iterator[list[dict[str, Any]]]:
    """Yield batches of two updates of one athlete, then single updates."""
    for number in range(BATCHES):
        yield [_update(number, 2 * number), _update(number, 2 * number + 1)]
    for number in range(POSTS):
        yield [_update(number, 2 * BATCHES + number)]


def _update(number: int, state: int) -> dict[str, Any]:
    return {"type": TYPE, "data": {"object": {"id": f"athlete_{number % ATHLETES}", "state": state}}}


def _accepted(api: Api, key: str, events: list[dict[str, Any]]) -> list[Any]:
    """Send events in one request and wait for the response."""
    if len(events) == 1:
        return [api.ok("POST", "/v1/events", events[0], idempotency_key=key)]
    stored: list[Any] = api.ok("POST", "/v1/events/batch", {"events": events}, idempotency_key=key)["data"]
    return stored


def _restart(server: Server, *, skew_ms: int) -> None:
    with_skew = [sys.executable, "-c", WITH_CLOCK_SKEW.format(ms=skew_ms, program=PROGRAM)]
    server._command = [*(with_skew if skew_ms else [PROGRAM]), *server._command[server._command.index("serve") :]]
    server.start()
