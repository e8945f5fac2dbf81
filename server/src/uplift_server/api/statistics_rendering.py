"""Numbers as the API shows them."""

from typing import Any

from uplift_server.api.views import BucketView, NumbersView, PeriodName, StatsView
from uplift_server.core.operations.statistics import Series, Statistics
from uplift_server.core.timestamps import format_timestamp


def stats_view(period: PeriodName, series: Series) -> StatsView:
    """The numbers of a period."""
    return StatsView(
        period=period,
        totals=NumbersView(**_fields(series.totals)),
        buckets=[BucketView(at=format_timestamp(each.at), **_fields(each.statistics)) for each in series.buckets],
        failures={outcome.text: count for outcome, count in sorted(series.totals.failures.items())},
    )


def _fields(numbers: Statistics) -> dict[str, Any]:
    return {name: getattr(numbers, name) for name in NumbersView.model_fields}
