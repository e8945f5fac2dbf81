"""Latencies and their exact percentiles. Each value is stored in eight bytes."""

from array import array
from typing import Final

PERCENTILES: Final = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)
VALUES_MAX: Final = 10_000_000


class Latencies:
    """Durations in nanoseconds, summarized in milliseconds."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values = array("q")

    def add(self, nanoseconds: int) -> None:
        """Store a duration, unless VALUES_MAX is reached."""
        if len(self.values) < VALUES_MAX:
            self.values.append(nanoseconds)

    def summary(self) -> dict[str, float]:
        """Return percentiles (`p50` …), `max` and the count `n`; empty without values."""
        ordered = sorted(self.values)
        count = len(ordered)
        if not count:
            return {}
        found = {f"p{p:g}": ordered[min(count - 1, int(count * p / 100))] / 1e6 for p in PERCENTILES}
        return {name: round(value, 3) for name, value in found.items()} | {
            "max": round(ordered[-1] / 1e6, 3),
            "n": count,
        }
