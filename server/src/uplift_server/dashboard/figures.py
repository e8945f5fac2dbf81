"""Statistics as charts and text: deliveries by status, and attempts by outcome."""

from typing import Final

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.operations.statistics import Bucket, Period, Series, Statistics
from uplift_server.dashboard import words
from uplift_server.dashboard.charts import Column, Line, Part, Slot
from uplift_server.dashboard.words import OUTCOMES

STATUSES: Final = ("delivered", "pending", "held", "cancelled", "failed")
"""The statuses in a chart column, from bottom to top. Their names are also CSS classes."""
PERIODS: Final = {
    Period.LAST_HOUR: "hour",
    Period.LAST_24_HOURS: "24 hours",
    Period.LAST_7_DAYS: "7 days",
    Period.LAST_30_DAYS: "30 days",
}


def period_of(text: str) -> Period:
    """Return the period for the URL parameter `period`. The default is the last 24 hours."""
    return next((period for period in Period if period.value == text), Period.LAST_24_HOURS)


def status_columns(series: Series) -> list[Column]:
    """For each time bucket, return a chart column with the deliveries by status."""
    return [
        Column(Slot(bucket.at, series.bucket_ms), tuple(Part(name, name, _of(bucket, name)) for name in STATUSES))
        for bucket in series.buckets
    ]


def attempt_columns(series: Series) -> list[Column]:
    """For each time bucket, return a chart column with the successful and failed attempts."""
    return [
        Column(
            Slot(bucket.at, series.bucket_ms),
            (
                Part("succeeded", "delivered", succeeded(bucket.statistics)),
                Part("failed", "failed", sum(bucket.statistics.failures.values())),
            ),
        )
        for bucket in series.buckets
    ]


def latency_lines(series: Series) -> tuple[list[Slot], list[Line]]:
    """Return the time buckets of a latency chart, and its p50 and p95 lines."""
    numbers = [bucket.statistics for bucket in series.buckets]
    return [Slot(bucket.at, series.bucket_ms) for bucket in series.buckets], [
        Line("p50", "p50", tuple(each.p50_ms for each in numbers)),
        Line("p95", "p95", tuple(each.p95_ms for each in numbers)),
    ]


def failure_counts(numbers: Statistics) -> list[tuple[str, int, tuple[Part, Part]]]:
    """Return each outcome of failed attempts as text, its count, and the parts of a bar that shows its share.

    The most frequent outcome comes first.
    """
    counts = sorted(numbers.failures.items(), key=lambda each: (-each[1], each[0]))
    whole = sum(count for _, count in counts)
    return [
        (
            OUTCOMES[outcome],
            count,
            (Part(OUTCOMES[outcome], "failed", count), Part("others", "target", whole - count)),
        )
        for outcome, count in counts
    ]


def succeeded(numbers: Statistics) -> int:
    """Return the number of successful attempts."""
    return numbers.outcomes.get(Outcome.DELIVERED, 0)


def attempt_words(numbers: Statistics) -> str:
    """Return text with the numbers of successful and failed attempts, such as `12 attempts succeeded, 1 failed`."""
    good = succeeded(numbers)
    failed = sum(numbers.failures.values())
    return f"{words.count(good)} attempt{'' if good == 1 else 's'} succeeded, {words.count(failed)} failed"


def success_share(numbers: Statistics) -> float | None:
    """Return the share of successful attempts, from 0 to 1, or None if there are no attempts."""
    return succeeded(numbers) / numbers.attempts if numbers.attempts else None


def status_words(numbers: Statistics) -> str:
    """Return text with the number of deliveries for each status, such as `12 delivered, 1 failed`."""
    counts = {name: getattr(numbers, name) for name in STATUSES}
    told = [f"{words.count(count)} {name}" for name, count in counts.items() if count]
    return ", ".join(told) or "no deliveries"


def _of(bucket: Bucket, status: str) -> int:
    count: int = getattr(bucket.statistics, status)
    return count
