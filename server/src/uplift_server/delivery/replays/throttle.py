"""The pace of all replays of a process together: they use the processor time that everything else leaves."""

from collections.abc import Callable
from typing import Final

from uplift_server.core.deliveries.replays import Pace, together_per_second
from uplift_server.core.limits import REPLAY_RATE_PER_SECOND_MAX
from uplift_server.delivery.clock import Clock

LOOK_MS: Final = 1000
"""How often the load is looked at; two looks count alike."""


class SharedPace:
    """Looks how busy the process is with everything but replays, and slows them down together."""

    def __init__(self, clock: Clock, done: Callable[[], int]) -> None:
        """`done` tells how many requests were answered and deliveries settled so far, replays' among them."""
        self._clock = clock
        self._done = done
        self.replayed = 0
        """How many deliveries of replays were settled so far."""
        self._pace: Pace | None = None
        self._cores = 0.0
        self._looked_at = clock.now_ms()
        self._before = (clock.processor_s(), 0, 0)

    @property
    def slowed(self) -> bool:
        """Whether they may not release as many as they want."""
        return self._pace is not None

    def due(self, now: int) -> int:
        """How many deliveries may be released now."""
        if now >= self._looked_at + LOOK_MS:
            self._look(now)
        return REPLAY_RATE_PER_SECOND_MAX if self._pace is None else self._pace.due(now)

    def take(self, now: int, count: int) -> None:
        """Release so many, or with a negative number as many fewer than was said before."""
        if self._pace is not None:
            self._pace = self._pace.after(now, count)

    def _look(self, now: int) -> None:
        stands = (self._clock.processor_s(), self._done(), self.replayed)
        processor_s, done, replayed = (later - before for later, before in zip(stands, self._before, strict=True))
        cores = processor_s * 1000 / (now - self._looked_at)
        # A delivery of a replay costs about as much as any other step of an event.
        others = 1 - replayed / done if done else 0.0
        self._cores = (self._cores + cores * others) / 2
        self._looked_at, self._before = now, stands
        rate = together_per_second(self._cores)
        self._pace = None if rate is None else Pace(rate, now if self._pace is None else self._pace.next_ms)
