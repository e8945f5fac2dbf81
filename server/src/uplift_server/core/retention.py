"""When the clock cannot be trusted to say what is too old."""

from typing import Final

GAP_MS_MIN: Final = 3_600_000


def clock_jumped(last_seen_at: int, now: int, retention_ms: int) -> bool:
    """Whether the clock (Unix ms) moved on by more than half the retention since a server last looked at it.

    A running server looks once a minute. So either the clock was set forward, and retention would delete events that
    are not old, or no server ran for that long.
    """
    return now - last_seen_at > max(GAP_MS_MIN, retention_ms // 2)
