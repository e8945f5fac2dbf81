"""The interval between attempts of a rate-limited endpoint."""

from typing import Final

LATENESS_CREDIT_MS: Final = 20
"""An attempt that starts up to this late does not delay the next one."""


def start_interval_ms(per_second: int) -> float:
    """Return the interval between two starts, in ms, so that no second has more than `per_second` starts.

    A second that begins with a late start must not include an extra start. Therefore, the intervals of a second add up
    to LATENESS_CREDIT_MS more, and the rate is 98% of the limit.
    """
    return (1000 + LATENESS_CREDIT_MS) / per_second
