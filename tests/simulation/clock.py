"""Virtual time: one time for all processes of a simulation, and a clock for each process.

The time jumps to the next timer. In a quiet period, loops only poll. `VirtualTime.skip` runs each of these polls once
instead of thousands of times, so that a quiet hour costs as much as a second.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from tests import virtual_waits

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
START = 1_764_000_000_000

SHORT_POLL_MS_MAX = 10 * SECOND
LONG_POLL_MS_MAX = HOUR
RARE_MS = 6 * HOUR
"""In quiet periods, polls with an interval of at least a minute, such as retention, run only once in this time."""
AHEAD_MS_MAX = 40
"""The maximum error of a process's estimate of the database's time."""
PHASES_MS = 500
"""Polls that were due during a skip run within this time after the skip."""


def is_poll(timeout_ms: float) -> bool:
    """Return whether a wait of this length is the interval of a loop that polls, not a wait for a known time."""
    return timeout_ms <= SHORT_POLL_MS_MAX or (timeout_ms <= LONG_POLL_MS_MAX and timeout_ms % SECOND == 0)


@dataclass(order=True, slots=True)
class Timer:
    """A callback at a time (Unix ms)."""

    at: float
    number: int
    call: Callable[[], object] = field(compare=False)
    polls: bool = field(compare=False)
    not_before: float = field(compare=False)
    """A skip does not run the timer before this time."""
    is_cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """Cancel the callback."""
        self.is_cancelled = True


class VirtualTime:
    """The time of the world (Unix ms)."""

    def __init__(self) -> None:
        self.now = START
        self._timers: list[Timer] = []
        self._numbers = itertools.count()

    def call_at(self, at: float, call: Callable[[], object], *, polls: bool = False) -> Timer:
        """Add a timer. `polls` is true for the interval of a loop that polls."""
        not_before = self.now + RARE_MS if polls and at - self.now >= MINUTE else 0
        timer = Timer(max(at, self.now), next(self._numbers), call, polls, not_before)
        heapq.heappush(self._timers, timer)
        return timer

    def next_at(self) -> float | None:
        """Return the time of the next timer."""
        while self._timers and self._timers[0].is_cancelled:
            heapq.heappop(self._timers)
        return self._timers[0].at if self._timers else None

    def next_known_at(self) -> float | None:
        """Return the time of the next timer that is not a poll."""
        return min((each.at for each in self._timers if not each.polls and not each.is_cancelled), default=None)

    def fire(self) -> None:
        """Run the next timer at its time."""
        timer = heapq.heappop(self._timers)
        self.now = max(self.now, int(timer.at))
        timer.call()

    def skip(self, ms: int) -> None:
        """Advance the time. Each poll that was due runs only once, because its other runs would change nothing."""
        self.now += ms
        self._timers = [each for each in self._timers if not each.is_cancelled]
        for each in self._timers:
            if each.polls and each.at < self.now + PHASES_MS:
                each.at = max(self.now + each.at % PHASES_MS, each.not_before)
        heapq.heapify(self._timers)

    def jump(self, ms: int) -> None:
        """Advance the time without running timers, like a machine that sleeps."""
        self.now += ms


class ProcessClock:
    """The clock of a process. It is `ahead` ms ahead of the world, and stops at the end of the process."""

    def __init__(self, time: VirtualTime, *, ahead: int = 0, wall_ahead: int = 0) -> None:
        self._time = time
        self.ahead = ahead
        self._wall_ahead = wall_ahead
        self.is_stopped = False
        self.is_disconnected = False
        """Whether the database is down for the process, so that its timers only retry."""
        self.suspended_until = 0
        """No timer runs before this time of the world."""
        self.waiting = 0
        """The number of loops that wait."""

    def now_ms(self) -> int:
        return self._time.now + self.ahead

    def wall_ms(self) -> int:
        return self._time.now + self.ahead + self._wall_ahead

    def monotonic_us(self) -> int:
        return self._time.now * 1000

    def processor_s(self) -> float:
        return 0.0

    def call_at(self, at_ms: float, callback: Callable[[], object]) -> Timer:
        return self._timer(at_ms - self.ahead, callback, polls=self.is_disconnected)

    def _timer(self, at: float, callback: Callable[[], object], *, polls: bool) -> Timer:
        def fire() -> None:
            if self.is_stopped or timer.is_cancelled:
                return
            if self._time.now < self.suspended_until:
                self._time.call_at(self.suspended_until, fire)
            else:
                callback()

        timer = self._time.call_at(at, fire, polls=polls)
        return timer

    async def wait(self, event: asyncio.Event, timeout_ms: float) -> None:
        at, polls = self._time.now + timeout_ms, is_poll(timeout_ms)
        self.waiting += 1
        try:
            await virtual_waits.wait(event, lambda wake: self._timer(at, wake, polls=polls))
        finally:
            self.waiting -= 1
