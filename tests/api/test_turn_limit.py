"""A limited number of requests starts in each turn of the event loop."""

import asyncio
from typing import Any

import pytest

from uplift_server.api.turn_limit import REQUESTS_MAX, TurnLimit


async def _unused(*_arguments: Any) -> Any:
    raise AssertionError("the middleware neither reads nor writes")


class Turns:
    """An application that records each request with the current turn of the event loop."""

    def __init__(self) -> None:
        self.turn = 0
        self.started: list[tuple[int, str]] = []

    async def __call__(self, scope: Any, _receive: Any, _send: Any) -> None:
        self.started.append((self.turn, scope["path"]))

    async def count(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.turn += 1


@pytest.fixture
async def turns() -> Any:
    turns = Turns()
    counting = asyncio.create_task(turns.count())
    yield turns
    counting.cancel()


async def test_requests_start_in_order_with_few_in_each_turn(turns: Turns) -> None:
    limit = TurnLimit(turns)
    await asyncio.gather(*(limit({"path": f"/{number}"}, _unused, _unused) for number in range(101)))
    assert [path for _, path in turns.started] == [f"/{number}" for number in range(101)]
    by_turn = [sum(turn == each for turn, _ in turns.started) for each in range(turns.turn + 1)]
    assert max(by_turn) <= REQUESTS_MAX
    assert sum(count == REQUESTS_MAX for count in by_turn) >= 45  # requests start in every turn


async def test_a_cancelled_request_does_not_start(turns: Turns) -> None:
    limit = TurnLimit(turns)
    requests = [asyncio.create_task(limit({"path": f"/{number}"}, _unused, _unused)) for number in range(40)]
    await asyncio.sleep(0)
    for request in requests[10:30]:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
    assert [path for _, path in turns.started] == [f"/{number}" for number in (*range(10), *range(30, 40))]
    assert turns.turn <= 40


async def test_requests_start_again_after_a_pause(turns: Turns) -> None:
    limit = TurnLimit(turns)
    for number in range(5):
        await limit({"path": f"/{number}"}, _unused, _unused)
        await asyncio.sleep(0)
    assert len(turns.started) == 5
