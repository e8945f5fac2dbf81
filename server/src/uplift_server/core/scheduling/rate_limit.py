"""The interval between attempts of a rate-limited endpoint."""

from typing import Final

LATENESS_CREDIT_MS: Final = 20
"""Maximum lateness, in ms, of a start that does not postpone the next attempt."""


def start_interval_ms(per_second: int) -> float:
    """Return the interval in ms between two starts, so that no second has more than `per_second` starts.

    A late start shortens the next interval, so a second that begins with a late start could include an extra start.
    Therefore, each interval is longer: the intervals of a second add up to 1 s and LATENESS_CREDIT_MS. The rate is 98%
    of the limit.
    """
    return (1000 + LATENESS_CREDIT_MS) / per_second
