"""Few requests start in one turn of the event loop, and none waits without limit."""

import asyncio
from typing import Any

import pytest

from uplift_server.api import turn_limit
from uplift_server.api.guard import WAITED_S
from uplift_server.api.last_answer import LastAnswer
from uplift_server.api.turn_limit import REQUESTS_MAX, TurnLimit


async def _receive() -> Any:
    raise AssertionError("the middleware reads nothing")


class Turns:
    """An application that records in which turn of the event loop each request starts, and the sent messages."""

    def __init__(self) -> None:
        self.turn = 0
        self.waited_s: list[float] = []
        self.started: list[tuple[int, str]] = []
        self.sent: list[Any] = []
        self.limit = TurnLimit(self)

    async def __call__(self, scope: Any, _receive: Any, _send: Any) -> None:
        self.started.append((self.turn, scope["path"]))
        self.waited_s.append(scope.get(WAITED_S, 0.0))

    async def count(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.turn += 1

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def request(self, path: str, kind: str = "http") -> "asyncio.Task[None]":
        return asyncio.create_task(self.limit({"type": kind, "path": path}, _receive, self.send))

    def requests(self, numbers: range) -> "list[asyncio.Task[None]]":
        return [self.request(f"/{number}") for number in numbers]

    @property
    def paths(self) -> list[str]:
        return [path for _, path in self.started]


@pytest.fixture
async def turns() -> Any:
    turns = Turns()
    counting = asyncio.create_task(turns.count())
    yield turns
    counting.cancel()


def paths(*ranges: range) -> list[str]:
    return [f"/{number}" for numbers in ranges for number in numbers]


async def test_requests_start_in_order_few_in_each_turn(turns: Turns) -> None:
    await asyncio.gather(*turns.requests(range(61)))
    assert turns.paths == paths(range(61))
    assert turns.waited_s[:REQUESTS_MAX] == [0.0] * REQUESTS_MAX
    assert min(turns.waited_s[REQUESTS_MAX:]) > 0
    by_turn = [sum(turn == each for turn, _ in turns.started) for each in range(turns.turn + 1)]
    assert max(by_turn) <= REQUESTS_MAX
    assert sum(count == REQUESTS_MAX for count in by_turn) >= 25  # these turns start as many requests as allowed


async def test_a_burst_starts_in_fewer_turns(turns: Turns) -> None:
    await asyncio.gather(*turns.requests(range(1_000)))
    assert turns.paths == paths(range(1_000))
    assert turns.turn < 200


async def test_a_later_request_does_not_overtake(turns: Turns) -> None:
    waiting = turns.requests(range(20))
    for number in range(20, 25):
        await asyncio.sleep(0)
        waiting += turns.requests(range(number, number + 1))
    await asyncio.gather(*waiting)
    assert turns.paths == paths(range(25))


async def test_a_cancelled_request_takes_no_room(turns: Turns) -> None:
    requests = turns.requests(range(40))
    await asyncio.sleep(0)
    for request in requests[10:30]:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
    assert turns.paths == paths(range(10), range(30, 40))
    assert turns.turn <= 40


async def test_requests_start_again_after_a_pause(turns: Turns) -> None:
    for number in range(5):
        await asyncio.gather(*turns.requests(range(number, number + 1)))
        await asyncio.sleep(0)
    assert turns.paths == paths(range(5))


async def test_health_checks_do_not_wait(turns: Turns) -> None:
    waiting = turns.requests(range(100))
    await asyncio.sleep(0)
    await turns.request("/readyz")
    assert turns.paths.index("/readyz") < 10
    await asyncio.gather(*waiting)


async def test_a_request_that_waits_too_long_gets_503(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_limit, "WAIT_SECONDS_MAX", -1.0)
    in_time = turns.requests(range(REQUESTS_MAX))
    await asyncio.gather(*in_time, turns.request("/late"), turns.request("/ws", "websocket"))
    assert turns.paths == paths(range(REQUESTS_MAX))
    http, _, websocket, _ = turns.sent
    assert (http["type"], http["status"]) == ("http.response.start", 503)
    assert (b"retry-after", b"1") in http["headers"]
    assert (websocket["type"], websocket["status"]) == ("websocket.http.response.start", 503)


async def test_a_stop_responds_to_waiting_requests(turns: Turns) -> None:
    app = LastAnswer(turns.limit)
    requests = [
        asyncio.create_task(app({"type": "http", "path": "/", "headers": []}, _receive, turns.send)) for _ in range(10)
    ]
    await asyncio.sleep(0)
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests)
    statuses = [message["status"] for message in turns.sent if "status" in message]
    assert statuses == [503] * (10 - len(turns.started))
