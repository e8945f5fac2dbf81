"""Time as the engine sees it, so that tests can bring their own."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """The wall clock, and waiting by it."""

    def now_ms(self) -> int:
        """Unix time in ms."""

    async def wait(self, event: asyncio.Event, timeout_ms: float) -> None:
        """Until the event is set or the time is over, whichever comes first."""

    def call_at(self, at_ms: float, callback: "Callback") -> "Handle":
        """Call back once at an instant (Unix ms), or soon if it has passed."""


class Callback(Protocol):
    """What `call_at` calls."""

    def __call__(self) -> None:
        """Without arguments."""


class Handle(Protocol):
    """A call to come."""

    def cancel(self) -> None:
        """Do not make it."""


class SystemClock:
    """The real one."""

    def now_ms(self) -> int:
        """See Clock."""
        return time.time_ns() // 1_000_000

    async def wait(self, event: asyncio.Event, timeout_ms: float) -> None:
        """See Clock."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await event.wait()
        except TimeoutError:
            pass

    def call_at(self, at_ms: float, callback: Callback) -> Handle:
        """See Clock."""
        return asyncio.get_running_loop().call_later(max(0.0, (at_ms - self.now_ms()) / 1000), callback)
