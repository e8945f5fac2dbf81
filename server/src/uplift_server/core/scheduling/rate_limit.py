"""How far apart the attempts of a rate-limited endpoint begin."""

from typing import Final

LATENESS_CREDIT_MS: Final = 20
"""How late an attempt may begin and still count as on time, so that the next one need not be late too."""


def start_interval_ms(per_second: int) -> float:
    """The time between two starts, in ms, by which no second ever sees more than `per_second` of them.

    A second that begins with a late start is not to see the first one after it as well, so the gaps of a second last
    LATENESS_CREDIT_MS longer than it does: 98 % of the limit are reached, and never more than all of it.
    """
    return (1000 + LATENESS_CREDIT_MS) / per_second
