"""Waiting for something, and no longer than it may take."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")


async def within(seconds: float | None, work: Coroutine[Any, Any, R]) -> R:
    """What the work gives; None waits for ever. Raises asyncio.TimeoutError where it takes longer, and what it raises.

    Before Python 3.12, asyncio.wait_for loses a cancellation that comes together with the result: Ctrl-C at that
    moment would not end the command.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            # Where this process was stopped meanwhile, nobody has looked yet at what came.
            await asyncio.wait([task], timeout=0)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()
