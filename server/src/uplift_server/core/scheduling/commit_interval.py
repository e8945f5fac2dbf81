"""How far apart commits begin: the busier a process is, the more goes with each, for each has a price of its own."""

from typing import Final

COMMIT_INTERVAL_MS_MAX: Final = 2.0
"""Longer would hardly spare more. Measured at 3,400 events/s: 280 µs of processor time an event without it, 250 at
1 ms, 210 at 2 ms, 195 at 3 ms."""
CORES_FREE: Final = 0.5
"""A process that uses no more loses nothing by commits that carry little."""
CORES_BUSY: Final = 0.75
"""From here on, what it could spare makes everything else wait: requests, and what is to be sent."""


def commit_interval_ms(cores: float) -> float:
    """How long after one commit began the next may begin, in a process that uses so many cores."""
    return COMMIT_INTERVAL_MS_MAX * min(1.0, max(0.0, (cores - CORES_FREE) / (CORES_BUSY - CORES_FREE)))
