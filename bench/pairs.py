"""Paired runs, with and without the measured effect, so that changes of the machine cancel out."""

from bench.scene import Measurement


def p99_times(pair: tuple[Measurement, Measurement]) -> float:
    """Return the ratio of the second to the first run at the 99th percentile."""
    alone, beside = (run.received_ms.get("p99", 0.0) for run in pair)
    return beside / max(alone, 1e-9)
