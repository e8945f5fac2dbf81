"""Waits for an `asyncio.Event` with a timeout on a virtual clock."""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A callback that can be cancelled."""

    def cancel(self) -> None:
        """Cancel the callback."""


async def wait(event: asyncio.Event, start_timer: Callable[[Callable[[], None]], Timer]) -> None:
    """Wait until the event is set, or until the timer calls its callback."""
    if event.is_set():
        return
    woken = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    timer = start_timer(wake)
    # `asyncio.Event.set` resolves these futures. A task for `event.wait` would take five times as long.
    event._waiters.append(woken)
    try:
        await woken
    finally:
        timer.cancel()
        event._waiters.remove(woken)
