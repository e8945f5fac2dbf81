"""Waits for a coroutine, up to a time limit."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")


async def within(seconds: float | None, work: Coroutine[Any, Any, R]) -> R:
    """Return the result of a coroutine. `seconds` is the time limit, or None for no limit.

    Raises asyncio.TimeoutError and the coroutine's errors. Before Python 3.12, asyncio.wait_for loses a cancellation
    that arrives together with the result: Ctrl-C would not stop the command.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            # After a suspension of the process, a result may have arrived although the timeout has ended.
            await asyncio.wait([task], timeout=0)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()
