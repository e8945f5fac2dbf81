"""Detection of mass failures.

In a mass failure, so many endpoints begin to fail together that this server is probably the cause.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ENDPOINTS_MIN: Final = 10
"""Minimum number of failing endpoints in a mass failure."""
WITHIN_MS: Final = 3_600_000
"""Maximum time, in ms, between the first failures of any two endpoints in the same FailureGroup."""
ATTEMPTED_WITHIN_MS: Final = 86_400_000
"""Maximum age of an endpoint's last attempt, in ms, for the endpoint to count as recently attempted."""


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """A group of endpoints that began to fail within 1 hour of each other."""

    since: int
    """When the first endpoint of the group began to fail (Unix ms)."""
    endpoints: int

    def is_mass_failure(self, attempted: int) -> bool:
        """Return whether the group is so large that this server is probably the cause of the failures.

        A mass failure affects at least ENDPOINTS_MIN endpoints and at least half of the recently attempted endpoints.
        `attempted` is the number of recently attempted endpoints.
        """
        return self.endpoints >= ENDPOINTS_MIN and 2 * self.endpoints >= attempted


def largest_group(failing_since: Iterable[int]) -> FailureGroup | None:
    """Return the largest group of failing endpoints, or None if fewer than ENDPOINTS_MIN endpoints are failing.

    If several groups are equally large, return the earliest one. The group can have fewer than ENDPOINTS_MIN endpoints.
    `failing_since` contains Unix times in ms, in any order.
    """
    begun = sorted(failing_since)
    if len(begun) < ENDPOINTS_MIN:
        return None
    largest = FailureGroup(0, 0)
    first = 0
    for last, at in enumerate(begun):
        while at - begun[first] > WITHIN_MS:
            first += 1
        if last - first + 1 > largest.endpoints:
            largest = FailureGroup(begun[first], last - first + 1)
    return largest
