"""Conversion of statistics to API models."""

from typing import Any

from uplift_server.api.views import BucketView, NumbersView, PeriodName, StatsView
from uplift_server.core.operations.statistics import Series, Statistics
from uplift_server.core.timestamps import format_timestamp


def stats_view(period: PeriodName, series: Series) -> StatsView:
    """Return the statistics of a period for a response."""
    return StatsView(
        period=period,
        totals=NumbersView(**_fields(series.totals)),
        buckets=[BucketView(at=format_timestamp(each.at), **_fields(each.statistics)) for each in series.buckets],
        failures={outcome.text: count for outcome, count in sorted(series.totals.failures.items())},
    )


def _fields(numbers: Statistics) -> dict[str, Any]:
    return {name: getattr(numbers, name) for name in NumbersView.model_fields}
