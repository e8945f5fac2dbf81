"""Time as the engine sees it, so that tests can bring their own."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from uplift_server.core.operations.clock_offset import READINGS_KEPT, ClockReading, best_reading
from uplift_server.delivery.ports import Callback, Handle

SLEW_DIVISOR: Final = 10
"""While the machine's clock is behind ours, ours runs a tenth slower until both agree."""
STEP_LOGGED_MS_MIN: Final = 1000
_log = structlog.get_logger()


def _ticks_ns() -> int:
    # Linux counts a machine's sleep by another clock than the monotonic one, which other systems let go on.
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class DatabaseTime:
    """The time of the database's clock, by a clock of ours that nobody sets, and a few readings of that one.

    So all processes on a database go by one clock, however their machines' are set.
    """

    def __init__(self, ticks_ns: Callable[[], int] = _ticks_ns) -> None:
        """`ticks_ns` goes on by itself, also while the machine sleeps, from wherever it began."""
        self._ticks_ns = ticks_ns
        self._readings: deque[ClockReading] = deque(maxlen=READINGS_KEPT)
        self._offset_ns: int | None = None

    def ticks_ms(self) -> float:
        """What readings are made with."""
        return self._ticks_ns() / 1_000_000

    def add_reading(self, reading: ClockReading) -> None:
        """Take in a reading of the database's clock."""
        self._readings.append(reading)
        self._offset_ns = int(best_reading(self._readings).offset_ms * 1_000_000)

    def now_ns(self) -> int:
        """Unix time in ns; until the first reading, as the machine has it."""
        return time.time_ns() if self._offset_ns is None else self._ticks_ns() + self._offset_ns


class SystemClock:
    """The real one, which follows the machine's clock and is not set back with it.

    Due instants, leases and probes are instants of the wall clock. A machine that slept, or whose clock was set
    forward, is followed at once: what fell due is due. When it is set back, everything would stand still until the old
    instant comes again, so we run on, a tenth slower than the monotonic clock, until the machine has caught up: waits
    are then as much longer as their jitter makes them anyway. Only who asks every now and then sees that, as the
    engine's loops do.
    """

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Tests bring clocks of their own."""
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._now_ms = 0
        self._slewed = (0, 0, 0)
        """While we run on by ourselves: the monotonic ns and our ms at which that began, and the last ms we gave."""

    def now_ms(self) -> int:
        """See Clock."""
        wall_ms = self._wall_ns() // 1_000_000
        if wall_ms >= self._now_ms:
            self._now_ms = wall_ms
            return wall_ms
        return self._slew()

    def wall_ms(self) -> int:
        """See Clock."""
        return self._wall_ns() // 1_000_000

    def monotonic_us(self) -> int:
        """See Clock."""
        return self._monotonic_ns() // 1000

    def processor_s(self) -> float:
        """See Clock."""
        return time.process_time()

    def _slew(self) -> int:
        began_ns, from_ms, last_ms = self._slewed
        passed_ns = self._monotonic_ns()
        if last_ms != self._now_ms:
            # The machine's clock was followed since.
            began_ns, from_ms = passed_ns, self._now_ms
            behind_ms = from_ms - self.wall_ms()
            if behind_ms >= STEP_LOGGED_MS_MIN:
                _log.warning(
                    "the machine's clock was set back; ours runs slower until it has caught up", behind_ms=behind_ms
                )
        passed_ns -= began_ns
        self._now_ms = from_ms + (passed_ns - passed_ns // SLEW_DIVISOR) // 1_000_000
        self._slewed = (began_ns, from_ms, self._now_ms)
        return self._now_ms

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
