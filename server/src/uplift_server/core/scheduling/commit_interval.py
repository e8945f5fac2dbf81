"""The interval between commits. A busy process commits larger batches less often, because each commit has a cost."""

from typing import Final

COMMIT_INTERVAL_MS_MAX: Final = 2.0
"""The maximum interval. Measured at 3,400 events/s: 280 µs of CPU time per event without an interval, 250 at 1 ms, 210
at 2 ms, 195 at 3 ms.
"""
CORES_FREE: Final = 0.5
"""Below this use of CPU cores, there is no interval."""
CORES_BUSY: Final = 0.75
"""At or above this use of CPU cores, the interval is at its maximum."""


def commit_interval_ms(cores: float) -> float:
    """Return the minimum time between the starts of two commits, in a process that uses this many CPU cores."""
    return COMMIT_INTERVAL_MS_MAX * min(1.0, max(0.0, (cores - CORES_FREE) / (CORES_BUSY - CORES_FREE)))
