"""Latencies, kept one by one so that every percentile is exact: eight bytes a value, millions at most."""

from array import array
from typing import Final

PERCENTILES: Final = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)
VALUES_MAX: Final = 10_000_000


class Latencies:
    """Durations in nanoseconds, summed up in milliseconds."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values = array("q")

    def add(self, nanoseconds: int) -> None:
        """Remember one duration, as long as there is room."""
        if len(self.values) < VALUES_MAX:
            self.values.append(nanoseconds)

    def summary(self) -> dict[str, float]:
        """Percentiles (`p50` …), `max` and the count `n`; empty where nothing was measured."""
        ordered = sorted(self.values)
        count = len(ordered)
        if not count:
            return {}
        found = {f"p{p:g}": ordered[min(count - 1, int(count * p / 100))] / 1e6 for p in PERCENTILES}
        return {name: round(value, 3) for name, value in found.items()} | {
            "max": round(ordered[-1] / 1e6, 3),
            "n": count,
        }
