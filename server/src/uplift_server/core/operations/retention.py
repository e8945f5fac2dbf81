"""Detection of clock jumps that would make retention delete too much."""

from typing import Final

GAP_MS_MIN: Final = 3_600_000


def clock_jumped(last_seen_at: int, now: int, retention_ms: int) -> bool:
    """Return whether the clock jumped forward by more than half the retention period and by more than GAP_MS_MIN.

    Times are Unix ms. `last_seen_at` is the time when a server last read the clock. A running server reads the clock
    once a minute. A jump has two possible causes: no server was running between the two times, or the clock was set
    forward. In the second case, retention would delete events that are not old.
    """
    return now - last_seen_at > max(GAP_MS_MIN, retention_ms // 2)
