"""Pairs of runs with and without the measured effect. Changes in machine speed cancel out within a pair."""

from bench.scene import Measurement


def p99_times(pair: tuple[Measurement, Measurement]) -> float:
    """Return the p99 of the second run, divided by the p99 of the first."""
    alone, beside = (run.received_ms.get("p99", 0.0) for run in pair)
    return beside / max(alone, 1e-9)
