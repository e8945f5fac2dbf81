"""Numbers as the API shows them."""

from typing import Any

from uplift_server.api.views import BucketView, NumbersView, PeriodName, StatsView
from uplift_server.core.operations.statistics import Numbers, Series
from uplift_server.core.timestamps import instant_text


def stats_view(period: PeriodName, series: Series) -> StatsView:
    """The numbers of a period."""
    return StatsView(
        period=period,
        totals=NumbersView(**_fields(series.totals)),
        buckets=[BucketView(at=instant_text(each.at), **_fields(each.numbers)) for each in series.buckets],
        failures={outcome.text: count for outcome, count in sorted(series.totals.failures.items())},
    )


def _fields(numbers: Numbers) -> dict[str, Any]:
    return {name: getattr(numbers, name) for name in NumbersView.model_fields}
