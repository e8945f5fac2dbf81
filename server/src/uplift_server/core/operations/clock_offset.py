"""How far another clock is ahead of ours, as far as asking for its time can tell."""

from collections.abc import Sequence
from typing import Final, NamedTuple

READINGS_KEPT: Final = 8
"""An old reading tells less with every second, since clocks run unequally fast; a quick one is worth a few seconds."""

DRIFT_MS_MAX: Final = 1.0
"""By how much two clocks part while readings are kept; those further apart are of a clock that was set between them."""


class ClockReading(NamedTuple):
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


def best_reading(readings: Sequence[ClockReading]) -> ClockReading:
    """The reading that tells most: the one that was answered the fastest, of several the latest.

    `readings` stand in order. Those that cannot be true beside the latest are none of the clock as it is set now.
    """
    latest = readings[-1]
    true = [
        reading
        for reading in readings
        if abs(reading.offset_ms - latest.offset_ms) <= reading.uncertainty_ms + latest.uncertainty_ms + DRIFT_MS_MAX
    ]
    return min(true, key=lambda reading: (reading.uncertainty_ms, -reading.answered_at))
