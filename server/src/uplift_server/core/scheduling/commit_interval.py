"""The interval between commits.

A busy process waits longer between commits and stores more rows per commit, because each commit has a fixed cost.
"""

from typing import Final

COMMIT_INTERVAL_MS_MAX: Final = 2.0
"""The maximum of `commit_interval_ms`, in ms, which busy processes use.

Measured CPU time per event at 3,400 events/s: 280 µs without an interval, 250 µs at 1 ms, 210 µs at 2 ms, and 195 µs at
3 ms.
"""
CORES_FREE: Final = 0.5
"""A process that uses fewer CPU cores than this number commits without an interval."""
CORES_BUSY: Final = 0.75
"""A process that uses at least this number of CPU cores commits at COMMIT_INTERVAL_MS_MAX."""


def commit_interval_ms(cores: float) -> float:
    """Return the minimum time, in ms, between the starts of two commits.

    `cores` is the number of CPU cores that the process currently uses, such as 0.6.
    """
    return COMMIT_INTERVAL_MS_MAX * min(1.0, max(0.0, (cores - CORES_FREE) / (CORES_BUSY - CORES_FREE)))
