"""The interval between attempts to a rate-limited endpoint."""

from typing import Final

LATENESS_CREDIT_MS: Final = 20
"""If an attempt starts at most this many ms late, the next attempt is not postponed."""


def start_interval_ms(per_second: int) -> float:
    """Return the interval, in ms, between the starts of two attempts.

    With this interval, at most `per_second` attempts start in any second. A late start shortens the next interval, so a
    second that begins with a late start could include an extra start. Therefore, each interval is slightly longer:
    `per_second` intervals take 1 s plus LATENESS_CREDIT_MS. The actual rate is 98% of the limit.
    """
    return (1000 + LATENESS_CREDIT_MS) / per_second
