"""Mass failure: when so many endpoints begin to fail at once that the fault is more likely ours than theirs."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ENDPOINTS_MIN: Final = 10
"""Fewer endpoints than these are no mass."""
WITHIN_MS: Final = 3_600_000
"""Endpoints that began to fail within the same hour may have done so for one reason."""
ATTEMPTED_WITHIN_MS: Final = 86_400_000
"""Endpoints whose latest attempt is older say nothing about the present."""


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """The endpoints that began to fail within an hour."""

    since: int
    """When the first of them began to (Unix ms)."""
    endpoints: int

    def is_mass_failure(self, attempted: int) -> bool:
        """Whether they are too many for it to be the fault of each, of so many endpoints attempted of late."""
        return self.endpoints >= ENDPOINTS_MIN and 2 * self.endpoints >= attempted


def largest_group(failing_since: Iterable[int]) -> FailureGroup | None:
    """The largest group among endpoints that fail, the earliest of several; None where fewer fail than a mass has.

    `failing_since` are instants in Unix ms, in any order.
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
