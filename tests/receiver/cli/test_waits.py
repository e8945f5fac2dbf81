"""Waits with a timeout: result, timeout and cancellation."""

import asyncio
import selectors
import socket
import time
from typing import Any

import pytest

from uplift_webhooks.cli.listening.waits import within


async def test_within_returns_the_result_or_raises_the_error() -> None:
    async def fail() -> None:
        raise LookupError

    assert await within(5, asyncio.sleep(0, "x")) == "x"
    with pytest.raises(LookupError):
        await within(5, fail())


async def test_a_timeout_cancels_the_work() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, work())
    assert ended == ["cancelled"]


class _StoppedSelector(selectors.DefaultSelector):
    """A selector like that of a stopped process: one wait ends late, and reports none of the events that arrived."""

    stop_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        if not self.stop_seconds:
            return super().select(timeout)
        time.sleep(self.stop_seconds)
        self.stop_seconds = 0.0
        return []


def test_a_result_during_a_process_stop_is_not_a_timeout() -> None:
    async def read_during_stop() -> bytes:
        here, there = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=here)
        waiting = asyncio.ensure_future(within(0.2, reader.read(9)))
        await asyncio.sleep(0.01)
        there.sendall(b"x")
        selector.stop_seconds = 0.4
        try:
            return await waiting
        finally:
            writer.close()
            there.close()

    selector = _StoppedSelector()
    loop = asyncio.SelectorEventLoop(selector)
    try:
        assert loop.run_until_complete(read_during_stop()) == b"x"
    finally:
        loop.close()


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancellation_at_the_time_of_the_result_is_not_lost(turns: int) -> None:
    arrived = asyncio.Event()
    waiting = asyncio.ensure_future(within(5, arrived.wait()))
    await asyncio.sleep(0.01)
    arrived.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    if waiting.cancel():
        with pytest.raises(asyncio.CancelledError):
            await waiting
    else:
        assert waiting.result() is True
