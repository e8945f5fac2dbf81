"""How far another clock is ahead of ours, as far as asking for its time can tell."""

from collections.abc import Iterable
from typing import Final, NamedTuple

READINGS_KEPT: Final = 8
"""An old reading tells less with every second, since clocks run unequally fast; a quick one is worth a few seconds."""


class Reading(NamedTuple):
    """Another clock, read once. Instants are Unix ms; ours are those of one clock that is not set meanwhile."""

    asked_at: float
    theirs: float
    answered_at: float

    @property
    def offset_ms(self) -> float:
        """How far theirs is ahead: they looked at it some time between the question and the answer."""
        return self.theirs - (self.asked_at + self.answered_at) / 2

    @property
    def uncertainty_ms(self) -> float:
        """By how much that can be wrong."""
        return (self.answered_at - self.asked_at) / 2


def best(readings: Iterable[Reading]) -> Reading:
    """The reading that tells most: the one that was answered the fastest, of several the latest."""
    return min(readings, key=lambda reading: (reading.uncertainty_ms, -reading.answered_at))
