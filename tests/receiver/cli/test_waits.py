"""A wait with an end: it gives what came, gives up in time, and can be cancelled at any moment."""

import asyncio

import pytest

from uplift_webhooks.cli.listening.waits import within


async def test_it_gives_what_came_and_what_was_raised() -> None:
    async def fail() -> None:
        raise LookupError

    assert await within(5, asyncio.sleep(0, "x")) == "x"
    with pytest.raises(LookupError):
        await within(5, fail())


async def test_it_gives_up_and_cancels_the_work() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, work())
    assert ended == ["cancelled"]


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancellation_that_comes_with_the_result_is_not_lost(turns: int) -> None:
    came = asyncio.Event()
    waiting = asyncio.ensure_future(within(5, came.wait()))
    await asyncio.sleep(0.01)
    came.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    if waiting.cancel():
        with pytest.raises(asyncio.CancelledError):
            await waiting
    else:
        assert waiting.result() is True
