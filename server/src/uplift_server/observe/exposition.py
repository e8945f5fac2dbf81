"""Prometheus and OpenMetrics output. The server imports this module on the first request for metrics."""

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from uplift_server.observe.counters import Histogram
from uplift_server.observe.metrics import METRICS, Metric
from uplift_server.observe.snapshot import Snapshot


def render(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """Return all metrics in the format that the `Accept` header requests, and the content type of this format."""
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry()
    registry.register(_Collector(snapshot))
    # Add the memory, CPU time, open files and start time of this process, under their standard metric names.
    ProcessCollector(registry=registry)
    return encode(registry), content_type


class _Collector(Collector):
    """Passes the metrics from one snapshot to the Prometheus client."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Family]:
        """Yield every metric that has a value."""
        for metric in METRICS:
            value = metric.value(self._snapshot)
            if value is not None:
                yield _family(metric, value)


def _family(metric: Metric, value: float | Histogram | Mapping[str, float] | Mapping[str, str]) -> Family:
    if isinstance(value, Histogram):
        family = HistogramMetricFamily(metric.name, metric.help)
        family.add_metric((), _buckets(value), value.sum / value.per_second)
        return family
    if metric.kind == "info":
        assert isinstance(value, Mapping)
        return InfoMetricFamily(
            metric.name.removesuffix("_info"), metric.help, {name: str(text) for name, text in value.items()}
        )
    labels = () if metric.label is None else (metric.label,)
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    plain = kind(metric.name, metric.help, labels=labels)
    if isinstance(value, Mapping):
        for name, number in value.items():
            plain.add_metric((name,), float(number))
    else:
        plain.add_metric((), value)
    return plain


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return the upper bound and the cumulative count of each bucket in a histogram."""
    counts = accumulate(histogram.counts)
    bounds = [str(bound / histogram.per_second) for bound in histogram.bounds]
    return list(zip([*bounds, "+Inf"], map(float, counts), strict=True))
