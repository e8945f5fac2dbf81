"""Runs in pairs, without what is to be measured and with it: what the machine does meanwhile cancels out."""

from bench.scene import Measurement


def p99_times(pair: tuple[Measurement, Measurement]) -> float:
    """How many times as long as the first of a pair the second took, at the 99th percentile."""
    alone, beside = (run.received_ms.get("p99", 0.0) for run in pair)
    return beside / max(alone, 1e-9)
