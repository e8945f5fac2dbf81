"""Offset between this clock and another one, estimated from requests for its time."""

from collections.abc import Sequence
from typing import Final, NamedTuple

READINGS_KEPT: Final = 8
"""The number of recent readings to choose from. Clocks drift, so old readings become less accurate."""

DRIFT_MS_MAX: Final = 1.0
"""Maximum drift between two readings that are kept. A larger difference means that a clock was set."""


class ClockReading(NamedTuple):
    """One reading of another clock. Times are Unix ms; the local clock must not be set during the reading."""

    asked_at: float
    theirs: float
    answered_at: float

    @property
    def offset_ms(self) -> float:
        """How far the other clock is ahead, assuming that it was read halfway between request and response."""
        return self.theirs - (self.asked_at + self.answered_at) / 2

    @property
    def uncertainty_ms(self) -> float:
        """The maximum error of `offset_ms`."""
        return (self.answered_at - self.asked_at) / 2


def best_reading(readings: Sequence[ClockReading]) -> ClockReading:
    """Return the reading with the lowest uncertainty. On a tie, return the latest.

    `readings` are in order of time. Readings that contradict the latest one are ignored, because they are older than a
    clock change.
    """
    latest = readings[-1]
    consistent = [
        reading
        for reading in readings
        if abs(reading.offset_ms - latest.offset_ms) <= reading.uncertainty_ms + latest.uncertainty_ms + DRIFT_MS_MAX
    ]
    return min(consistent, key=lambda reading: (reading.uncertainty_ms, -reading.answered_at))
