"""Waits for a coroutine, up to a time limit."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")


async def within(seconds: float | None, work: Coroutine[Any, Any, R]) -> R:
    """Return the result of a coroutine. `seconds` is the time limit, or None for no limit.

    Raises asyncio.TimeoutError and the coroutine's errors. This function replaces asyncio.wait_for. Before Python 3.12,
    asyncio.wait_for can lose a cancellation that arrives at the same time as the result. Ctrl-C would then not stop the
    command.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            # If the process was suspended, the result may have arrived even though the timeout has expired.
            await asyncio.wait([task], timeout=0)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()
