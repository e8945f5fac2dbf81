"""Clocks: the engine's clock, and the database's clock, which all processes share."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from uplift_server.core.operations.clock_offset import READINGS_KEPT, ClockReading, best_reading
from uplift_server.delivery.ports import Callback, Clock, Handle

SLEW_DIVISOR: Final = 10
"""While the engine's clock is ahead of its wall clock, the engine's clock runs slower by 1/SLEW_DIVISOR."""
STEP_LOGGED_MS_MIN: Final = 1000
STORED_AHEAD_MS_MAX: Final = 3_600_000
"""The maximum difference between a stored time and the wall clock, in ms.

The engine's clock ignores a stored time that is further in the future.
"""
_log = structlog.get_logger()


def _ticks_ns() -> int:
    # On Linux, CLOCK_MONOTONIC stops while the machine sleeps, but CLOCK_BOOTTIME does not.
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class DatabaseTime:
    """Estimates the database's time from a monotonic clock and recent readings of the database's clock.

    All processes that use a database share this time, even if the clocks of their machines differ.
    """

    def __init__(self, ticks_ns: Callable[[], int] = _ticks_ns) -> None:
        """Create an estimate that has no readings yet.

        `ticks_ns` is a monotonic clock that keeps running while the machine sleeps.
        """
        self._ticks_ns = ticks_ns
        self._readings: deque[ClockReading] = deque(maxlen=READINGS_KEPT)
        self._offset_ns: int | None = None

    def ticks_ms(self) -> float:
        """Return the monotonic time in ms, so that callers can measure the duration of a reading."""
        return self._ticks_ns() / 1_000_000

    def add_reading(self, reading: ClockReading) -> None:
        """Add a reading of the database's clock."""
        self._readings.append(reading)
        self._offset_ns = int(best_reading(self._readings).offset_ms * 1_000_000)

    def now_ns(self) -> int:
        """Return the database's Unix time in ns. Before the first reading, return the machine's time."""
        return time.time_ns() if self._offset_ns is None else self._ticks_ns() + self._offset_ns


class SystemClock(Clock):
    """The engine's clock: it follows a wall clock, but never goes backward.

    On PostgreSQL, the wall clock is the database's clock. Otherwise, it is the machine's clock. The due times of
    deliveries and probes and the ends of leases are wall-clock times. If the machine sleeps or the wall clock is set
    forward, this clock also jumps forward. If the wall clock is set back, this clock runs 10% slower until both clocks
    show the same time. It does not stop in the meantime, because a stopped clock would delay deliveries. The engine's
    loops read this clock often enough to detect a jump.
    """

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Create a clock that follows `wall_ns` (Unix time) and measures durations with `monotonic_ns`."""
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._now_ms = 0
        self._slewed = (0, 0, 0)
        """The monotonic time (ns) and returned time (ms) at the start of the slew, and the last returned time (ms)."""

    def continue_after(self, stored_ms: int | None) -> None:
        """Make the clock continue after `stored_ms`, even if the wall clock is behind that time.

        `stored_ms` is a time (Unix ms) that an earlier process stored. Ignore a stored time that is too far in the
        future, because the earlier process probably had a wrong clock.
        """
        if stored_ms is not None and stored_ms - self.wall_ms() <= STORED_AHEAD_MS_MAX:
            self._now_ms = max(self._now_ms, stored_ms + 1)

    def now_ms(self) -> int:
        wall_ms = self._wall_ns() // 1_000_000
        if wall_ms >= self._now_ms:
            self._now_ms = wall_ms
            return wall_ms
        return self._slew()

    def wall_ms(self) -> int:
        return self._wall_ns() // 1_000_000

    def monotonic_us(self) -> int:
        return self._monotonic_ns() // 1000

    def processor_s(self) -> float:
        return time.process_time()

    def _slew(self) -> int:
        began_ns, from_ms, last_ms = self._slewed
        passed_ns = self._monotonic_ns()
        if last_ms != self._now_ms:
            # Since the last slew (slow period), if any, this clock has followed the wall clock, so a new slew starts.
            began_ns, from_ms = passed_ns, self._now_ms
            behind_ms = from_ms - self.wall_ms()
            if behind_ms >= STEP_LOGGED_MS_MIN:
                _log.warning("system clock set back", behind_ms=behind_ms)
        passed_ns -= began_ns
        self._now_ms = from_ms + (passed_ns - passed_ns // SLEW_DIVISOR) // 1_000_000
        self._slewed = (began_ns, from_ms, self._now_ms)
        return self._now_ms

    async def wait(self, event: asyncio.Event, timeout_ms: float) -> None:
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await event.wait()
        except TimeoutError:
            pass

    def call_at(self, at_ms: float, callback: Callback) -> Handle:
        return asyncio.get_running_loop().call_later(max(0.0, (at_ms - self.now_ms()) / 1000), callback)
