"""Detection of clock jumps that would make retention delete too much."""

from typing import Final

GAP_MS_MIN: Final = 3_600_000


def clock_jumped(last_seen_at: int, now: int, retention_ms: int) -> bool:
    """Return whether the clock (Unix ms) jumped forward by more than half the retention since a server last read it.

    Jumps of up to GAP_MS_MIN are ignored. A running server reads the clock once a minute. There are two possible causes
    of a jump: no server was running for that long, or the clock was set forward. In the second case, retention would
    delete events that are not old.
    """
    return now - last_seen_at > max(GAP_MS_MIN, retention_ms // 2)
