"""Statistics by hour and by minute: their rows, the periods that users can display, and percentiles of durations.

A row contains the counts of one hour or one minute for an endpoint, an event type, an account, or all accounts. A
delivery is counted at the time of its event, with its current status. An attempt is counted at the time when it
started. Test deliveries are not counted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from uplift_server.core.deliveries.outcomes import Outcome

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

# The R10 series of preferred numbers, each about a quarter larger than the previous one. These steps keep the
# interpolation error low.
_R10: Final = (1_000, 1_250, 1_600, 2_000, 2_500, 3_150, 4_000, 5_000, 6_300, 8_000)
DURATION_BOUNDS_US: Final = (
    *(bound * decade for decade in (1, 10, 100, 1_000) for bound in _R10),
    10_000_000,
    12_500_000,
    15_000_000,
)
"""The bounds of the duration classes, in microseconds.

The last bound is the default attempt timeout. No percentile exceeds this bound. Class `n` contains the durations
between bounds `n - 1` (inclusive) and `n` (exclusive).
"""


@dataclass(frozen=True, slots=True)
class Span:
    """The buckets of a period that ends now. All buckets have the same length.

    Each bucket begins at a multiple of its length in UTC. The last bucket is incomplete.
    """

    buckets: int
    bucket_ms: int

    def starts(self, now_ms: int) -> range:
        """Return the start of each bucket (Unix ms), oldest first."""
        last = now_ms - now_ms % self.bucket_ms
        return range(last - (self.buckets - 1) * self.bucket_ms, last + 1, self.bucket_ms)


class Period(Enum):
    """A period of statistics. Its value is the name in the API."""

    LAST_HOUR = "1h"
    LAST_24_HOURS = "24h"
    LAST_7_DAYS = "7d"
    LAST_30_DAYS = "30d"

    @property
    def span(self) -> Span:
        """The buckets of the period."""
        return _SPANS[self]


_SPANS: Final = {
    Period.LAST_HOUR: Span(60, MINUTE_MS),
    Period.LAST_24_HOURS: Span(24, HOUR_MS),
    Period.LAST_7_DAYS: Span(28, 6 * HOUR_MS),
    Period.LAST_30_DAYS: Span(30, 24 * HOUR_MS),
}


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts of deliveries and attempts in one or more minutes or hours."""

    deliveries: int = 0
    delivered: int = 0
    failed: int = 0
    held: int = 0
    cancelled: int = 0
    attempts: int = 0
    first_attempts: int = 0
    """Number of first attempts of deliveries."""
    first_delivered: int = 0
    """Number of successful first attempts."""
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    """The number of attempts for each outcome. Outcomes without attempts are omitted."""
    durations: Mapping[int, int] = field(default_factory=dict)
    """The number of attempts for each duration class (DURATION_BOUNDS_US). Classes without attempts are omitted."""

    @property
    def pending(self) -> int:
        """Number of pending deliveries."""
        # Retention may have deleted some hours, so the difference can be negative.
        return max(0, self.deliveries - self.delivered - self.failed - self.held - self.cancelled)

    @property
    def failures(self) -> dict[Outcome, int]:
        """The number of failed attempts for each outcome."""
        return {outcome: count for outcome, count in self.outcomes.items() if outcome is not Outcome.DELIVERED}

    @property
    def first_try_rate(self) -> float | None:
        """Share of successful first attempts, from 0 to 1. None if there are no first attempts."""
        return round(self.first_delivered / self.first_attempts, 4) if self.first_attempts else None

    @property
    def p50_ms(self) -> float | None:
        """Median attempt duration, in ms. None if there are no attempts."""
        return percentile_ms(self.durations, 0.5)

    @property
    def p95_ms(self) -> float | None:
        """95th percentile of the attempt durations, in ms. None if there are no attempts."""
        return percentile_ms(self.durations, 0.95)


@dataclass(frozen=True, slots=True)
class Bucket:
    """The statistics of a bucket that begins at `at` (Unix ms)."""

    at: int
    statistics: Statistics


@dataclass(frozen=True, slots=True)
class Series:
    """Statistics of a period: the totals, and all buckets, oldest first."""

    bucket_ms: int
    totals: Statistics
    buckets: tuple[Bucket, ...]


def series(span: Span, now_ms: int, rows: Iterable[tuple[int, Statistics]]) -> Series:
    """Return the statistics of a span, divided into its buckets.

    Each row contains a time (Unix ms), and the statistics to add to the bucket of this time. The function ignores rows
    outside the span.
    """
    return gathered_into(span.starts(now_ms), rows)


def gathered_into(starts: range, rows: Iterable[tuple[int, Statistics]]) -> Series:
    """Return the statistics of the buckets that begin at `starts`, a range whose step is the bucket length in ms.

    Each row contains a time (Unix ms), and the statistics to add to the bucket of this time.
    """
    gathered: dict[int, list[Statistics]] = {at: [] for at in starts}
    for at, numbers in rows:
        start = at - at % starts.step
        if start in gathered:
            gathered[start].append(numbers)
    # Skip the addition for a bucket with one row, because a page can show many sparklines.
    buckets = tuple(Bucket(at, each[0] if len(each) == 1 else total(each)) for at, each in gathered.items())
    return Series(starts.step, total(bucket.statistics for bucket in buckets), buckets)


def total(several: Iterable[Statistics]) -> Statistics:
    """Return the sum of several statistics."""
    counts: Counter[str] = Counter()
    outcomes: Counter[Outcome] = Counter()
    durations: Counter[int] = Counter()
    for numbers in several:
        for name in COUNT_FIELDS:
            counts[name] += getattr(numbers, name)
        outcomes.update(numbers.outcomes)
        durations.update(numbers.durations)
    return Statistics(**counts, outcomes=dict(outcomes), durations=dict(durations))


COUNT_FIELDS: Final = (
    "deliveries", "delivered", "failed", "held", "cancelled", "attempts", "first_attempts", "first_delivered",
)  # fmt: skip
"""The names of the Statistics fields that are plain numbers."""


def percentile_ms(durations: Mapping[int, int], share: float) -> float | None:
    """Return a percentile of the attempt durations in ms, to three significant digits.

    `share` (0 to 1) is the fraction of attempts that take no longer than the result. The function interpolates between
    the bounds of a duration class. The result never exceeds the last bound, and is None if there are no attempts.
    """
    rank = share * sum(durations.values())
    passed = 0
    for number, count in sorted(durations.items()):
        if number == len(DURATION_BOUNDS_US):
            break
        if passed + count >= rank:
            low = DURATION_BOUNDS_US[number - 1] if number else 0
            high = DURATION_BOUNDS_US[number]
            return float(f"{(low + (high - low) * (rank - passed) / count) / 1000:.3g}")
        passed += count
    return DURATION_BOUNDS_US[-1] / 1000 if durations else None


def sparse_text(counts: Mapping[int, int] | Mapping[Outcome, int]) -> str:
    """Format counts as text for the database, and omit counts of 0.

    Each key is the number that identifies an outcome or a duration class. For example, `0:17 5:1` contains the count 17
    for key 0, and the count 1 for key 5.
    """
    return " ".join([f"{number:d}:{count}" for number, count in sorted(counts.items()) if count])


def parse_sparse(text: str) -> dict[int, int]:
    """Parse the text that `sparse_text` returns. The keys of the result are the numbers before the colons."""
    numbers = [*map(int, text.replace(":", " ").split())]
    return dict(zip(numbers[::2], numbers[1::2], strict=True))
