"""Estimates the offset between the local clock and another clock from readings of the other clock."""

from collections.abc import Sequence
from typing import Final, NamedTuple

READINGS_KEPT: Final = 8
"""Number of recent readings to keep. Clocks drift, so old readings become less accurate."""

DRIFT_MS_MAX: Final = 1.0
"""Maximum drift, in ms, between two kept readings. A larger difference means that one of the clocks was set."""


class ClockReading(NamedTuple):
    """A reading of another clock, and the local times of the request and the response.

    Times are Unix ms. The reading is valid only if the local clock is not set between the request and the response.
    """

    asked_at: float
    theirs: float
    answered_at: float

    @property
    def offset_ms(self) -> float:
        """The number of ms by which the other clock is ahead.

        The calculation assumes that the other clock was read halfway between the request and the response.
        """
        return self.theirs - (self.asked_at + self.answered_at) / 2

    @property
    def uncertainty_ms(self) -> float:
        """The maximum error of `offset_ms`, in ms."""
        return (self.answered_at - self.asked_at) / 2


def best_reading(readings: Sequence[ClockReading]) -> ClockReading:
    """Return the reading with the lowest uncertainty. If several readings are equally certain, return the latest one.

    `readings` are sorted by time, oldest first. The function ignores readings that contradict the latest reading,
    because one of the clocks was set after those readings.
    """
    latest = readings[-1]
    consistent = [
        reading
        for reading in readings
        if abs(reading.offset_ms - latest.offset_ms) <= reading.uncertainty_ms + latest.uncertainty_ms + DRIFT_MS_MAX
    ]
    return min(consistent, key=lambda reading: (reading.uncertainty_ms, -reading.answered_at))
