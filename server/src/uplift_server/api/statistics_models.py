"""Models for statistics: query parameters and responses."""

from typing import Literal

from pydantic import BaseModel, Field

from uplift_server.api.bodies import Body
from uplift_server.api.bodies import Timestamp as TimestampParameter
from uplift_server.api.queries import Paging
from uplift_server.api.views import Timestamp
from uplift_server.core.problems import Problem
from uplift_server.service.statistics_ranges import DAYS_BY_DAY_MAX, DAYS_BY_HOUR_MAX, StatisticsQuery

PeriodName = Literal["1h", "24h", "7d", "30d"]


class EndpointStatsQuery(Body):
    """Query parameters that select the period or the time range for statistics."""

    period: PeriodName | None = Field(
        default=None,
        description="Period that ends now, in UTC. `1h`: 60 buckets of 1 minute. `24h` (default): 24 buckets of 1 hour."
        " `7d`: 28 buckets of 6 hours. `30d`: 30 buckets of 1 day.",
    )
    since: TimestampParameter | None = Field(
        default=None,
        description="Start of a range. Default: one day before `until`. The server extends the range to whole hours or"
        " days.",
    )
    until: TimestampParameter | None = Field(default=None, description="End of a range. Default: now.")
    by: Literal["hour", "day"] | None = Field(
        default=None,
        description=f"Bucket size for a range: `hour` (default, up to {DAYS_BY_HOUR_MAX} days) or `day` (up to"
        f" {DAYS_BY_DAY_MAX} days).",
    )

    def range_query(self) -> StatisticsQuery | None:
        """Return the requested range, or None if the request contains no range parameters."""
        if (self.since, self.until, self.by) == (None, None, None):
            return None
        return StatisticsQuery(self.since, self.until, self.by)

    def problems(self) -> list[Problem]:
        """Return a problem if the request contains both a period and a range."""
        if self.period is None or self.range_query() is None:
            return []
        text = "`period` cannot be combined with a range. Send either `period`, or `since`, `until` and `by`."
        return [Problem("period", "combination_invalid", text)]


class StatsQuery(EndpointStatsQuery, Paging):
    """Query parameters that select a period or a time range, and a page of groups."""

    # This field allows more values than the field of the base class.
    by: Literal["hour", "day", "type", "endpoint"] | None = Field(  # type: ignore[assignment]
        default=None,
        description=f"Bucket size for a range: `hour` (default, up to {DAYS_BY_HOUR_MAX} days) or `day` (up to"
        f" {DAYS_BY_DAY_MAX} days). `type` and `endpoint` (up to {DAYS_BY_HOUR_MAX} days) return `groups` instead"
        " of buckets.",
    )

    def problems(self) -> list[Problem]:
        """Return a problem for each parameter that cannot be combined with the request's other parameters."""
        found = super().problems()
        if self.by not in {"type", "endpoint"}:
            text = "The parameter requires groups. Send `by=type` or `by=endpoint`, or omit the parameter."
            paging = sorted(self.model_fields_set & Paging.model_fields.keys())
            found += [Problem(name, "combination_invalid", text) for name in paging]
        return found


class NumbersView(BaseModel):
    """Counts of deliveries and attempts.

    A delivery is counted at the time of its event, and an attempt is counted at the time it starts.
    """

    deliveries: int = Field(description="Number of deliveries.")
    delivered: int = Field(description="Number of deliveries with the status `delivered`.")
    failed: int = Field(description="Number of failed deliveries.")
    pending: int = Field(description="Number of pending deliveries.")
    held: int = Field(description="Number of held deliveries.")
    cancelled: int = Field(description="Number of cancelled deliveries.")
    attempts: int = Field(description="Number of attempts.")
    first_try_rate: float | None = Field(
        description="Share of first attempts that succeeded, 0 to 1. Null if there were no attempts."
    )
    p50_ms: float | None = Field(
        description="Median attempt duration in milliseconds, at most 15,000: longer attempts count as 15 s. Null if"
        " there were no attempts."
    )
    p95_ms: float | None = Field(
        description="95th percentile of attempt durations in milliseconds, at most 15,000: longer attempts count as"
        " 15 s. Null if there were no attempts."
    )


class _Stretch(BaseModel):
    at: Timestamp = Field(description="Start of the bucket.")


class BucketView(NumbersView, _Stretch):
    """The statistics for one bucket of a period or range."""


class GroupView(BaseModel):
    """The statistics for an event type or an endpoint."""

    type: str | None = Field(default=None, description="Event type. Only with `by=type`.")
    endpoint: str | None = Field(default=None, description="Endpoint ID. Only with `by=endpoint`.")
    deliveries: int = Field(description="Number of deliveries.")
    delivered: int = Field(description="Number of deliveries with the status `delivered`.")
    failed: int = Field(description="Number of failed deliveries.")
    pending: int = Field(description="Number of pending deliveries.")
    held: int = Field(description="Number of held deliveries.")
    cancelled: int = Field(description="Number of cancelled deliveries.")
    attempts: int | None = Field(description="Number of attempts. Null with `by=type`.")
    first_try_rate: float | None = Field(
        description="Share of first attempts that succeeded, 0 to 1. Null if there were no attempts, or with `by=type`."
    )


class StatsView(BaseModel):
    """The statistics for a period or a range."""

    period: PeriodName | None = Field(description="Requested period. Null if you requested a range.")
    since: Timestamp = Field(description="Start of the period or range.")
    until: Timestamp = Field(description="End of the period or range.")
    totals: NumbersView
    buckets: list[BucketView] = Field(description="All buckets, oldest first. Empty with `by=type` or `by=endpoint`.")
    failures: dict[str, int] = Field(description="Number of failed attempts per outcome.")
    groups: list[GroupView] = Field(
        default=[],
        description="Only with `by=type` or `by=endpoint`: the event types or endpoints with deliveries or attempts,"
        " the most recently created one first. A page can have fewer groups than `limit`.",
    )
    next_cursor: str | None = Field(default=None, description="Cursor for the next page of groups.")
    prev_cursor: str | None = Field(default=None, description="Cursor for the previous page of groups.")
