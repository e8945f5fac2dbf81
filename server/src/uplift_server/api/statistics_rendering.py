"""Converts statistics to API models."""

from typing import Any

from uplift_server.api.statistics_models import BucketView, GroupView, NumbersView, StatsView
from uplift_server.core.operations.statistics import Period, Series, Statistics
from uplift_server.core.timestamps import format_timestamp
from uplift_server.service.context import ServiceContext
from uplift_server.service.statistics_ranges import Group, RangeStatistics, StatisticsQuery


def stats_view(period: Period | None, series: Series) -> StatsView:
    """Return the API model of statistics for a period or a range."""
    return StatsView(
        period=None if period is None else period.value,
        since=format_timestamp(series.buckets[0].at),
        until=format_timestamp(series.buckets[-1].at + series.bucket_ms),
        totals=NumbersView(**_fields(series.totals)),
        buckets=[BucketView(at=format_timestamp(each.at), **_fields(each.statistics)) for each in series.buckets],
        failures={outcome.text: count for outcome, count in sorted(series.totals.failures.items())},
    )


def range_view(query: StatisticsQuery, found: RangeStatistics, context: ServiceContext) -> StatsView:
    """Return the API model of statistics for a range."""
    view = stats_view(None, found.series)
    if found.groups is not None:
        view.buckets = []
        view.groups = [_group(query, group) for group in found.groups.items]
        view.next_cursor, view.prev_cursor = context.page_cursors(found.groups)
    return view


def _group(query: StatisticsQuery, group: Group) -> GroupView:
    numbers, is_type = group.statistics, query.by == "type"
    fields: dict[str, Any] = {"type" if is_type else "endpoint": group.name}
    fields |= {name: getattr(numbers, name) for name in GroupView.model_fields if name not in {"type", "endpoint"}}
    if is_type:
        fields |= {"attempts": None, "first_try_rate": None}
    return GroupView(**fields)


def _fields(numbers: Statistics) -> dict[str, Any]:
    return {name: getattr(numbers, name) for name in NumbersView.model_fields}
