"""What a row of numbers means, over which periods rows are shown, and percentiles of durations.

A row tells of one hour of one endpoint, of an account, or of all. Deliveries are counted in the hour in which their
event was created, in the status they have now; attempts in the hour in which they began. Tests are never counted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from uplift_server.core.deliveries.outcomes import Outcome

HOUR_MS: Final = 3_600_000

# The R10 series of preferred numbers: each is about a quarter more than the one before, so that what is interpolated
# between two is never far off. An attempt that takes as long as the last, which is the usual deadline, is told as that.
_R10: Final = (1_000, 1_250, 1_600, 2_000, 2_500, 3_150, 4_000, 5_000, 6_300, 8_000)
DURATION_BOUNDS_US: Final = (
    *(bound * decade for decade in (1, 10, 100, 1_000) for bound in _R10),
    10_000_000,
    12_500_000,
    15_000_000,
)
"""Class `n` of the durations holds those from bound `n - 1` on that are shorter than bound `n`."""


@dataclass(frozen=True, slots=True)
class Span:
    """Buckets of equal length up to now. Their limits are multiples of the length in UTC; the last one still fills."""

    buckets: int
    bucket_ms: int

    def starts(self, now_ms: int) -> range:
        """When each begins (Unix ms), the oldest first."""
        last = now_ms - now_ms % self.bucket_ms
        return range(last - (self.buckets - 1) * self.bucket_ms, last + 1, self.bucket_ms)


class Period(Enum):
    """What numbers may be asked for. The value is its name outside."""

    LAST_24_HOURS = "24h"
    LAST_7_DAYS = "7d"
    LAST_30_DAYS = "30d"

    @property
    def span(self) -> Span:
        """Its buckets."""
        return _SPANS[self]


_SPANS: Final = {
    Period.LAST_24_HOURS: Span(24, HOUR_MS),
    Period.LAST_7_DAYS: Span(28, 6 * HOUR_MS),
    Period.LAST_30_DAYS: Span(30, 24 * HOUR_MS),
}


@dataclass(frozen=True, slots=True)
class Statistics:
    """What was counted, of an hour or of several together."""

    deliveries: int = 0
    delivered: int = 0
    failed: int = 0
    held: int = 0
    cancelled: int = 0
    attempts: int = 0
    first_attempts: int = 0
    """Of the attempts, those that were the first of their delivery."""
    first_delivered: int = 0
    """Of the first attempts, those that succeeded."""
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    """How the attempts ended; outcomes without one are left out."""
    durations: Mapping[int, int] = field(default_factory=dict)
    """How many attempts fell into which class of DURATION_BOUNDS_US; classes without one are left out."""

    @property
    def pending(self) -> int:
        """Deliveries that have not come to any of the other statuses."""
        # What was counted with an hour that retention has removed since may be missing here.
        return max(0, self.deliveries - self.delivered - self.failed - self.held - self.cancelled)

    @property
    def failures(self) -> dict[Outcome, int]:
        """How the attempts that failed ended."""
        return {outcome: count for outcome, count in self.outcomes.items() if outcome is not Outcome.DELIVERED}

    @property
    def first_try_rate(self) -> float | None:
        """Which share of the first attempts succeeded, 0 to 1; None where there was none."""
        return round(self.first_delivered / self.first_attempts, 4) if self.first_attempts else None

    @property
    def p50_ms(self) -> float | None:
        """How long half of the attempts took at most."""
        return percentile_ms(self.durations, 0.5)

    @property
    def p95_ms(self) -> float | None:
        """How long 95 % of the attempts took at most."""
        return percentile_ms(self.durations, 0.95)


@dataclass(frozen=True, slots=True)
class Bucket:
    """The numbers of a stretch of time that begins at an instant (Unix ms)."""

    at: int
    statistics: Statistics


@dataclass(frozen=True, slots=True)
class Series:
    """The numbers of a span: together, and bucket by bucket, the oldest first and none left out."""

    bucket_ms: int
    totals: Statistics
    buckets: tuple[Bucket, ...]


def series(span: Span, now_ms: int, hours: Iterable[tuple[int, Statistics]]) -> Series:
    """Gather hours (when they begin, Unix ms, and their numbers) into the buckets of a span; others are left out."""
    starts = span.starts(now_ms)
    gathered: dict[int, list[Statistics]] = {at: [] for at in starts}
    for at, numbers in hours:
        start = at - at % span.bucket_ms
        if start in gathered:
            gathered[start].append(numbers)
    # Where a bucket is an hour, as for the sparklines of a whole page, there is nothing to be added up.
    buckets = tuple(Bucket(at, each[0] if len(each) == 1 else total(each)) for at, each in gathered.items())
    return Series(span.bucket_ms, total(bucket.statistics for bucket in buckets), buckets)


def total(several: Iterable[Statistics]) -> Statistics:
    """Several numbers together."""
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
"""The plain numbers among the fields."""


def percentile_ms(durations: Mapping[int, int], share: float) -> float | None:
    """The duration that a share (0 to 1) of those counted do not exceed, to three digits; None where there are none.

    It is interpolated within its class; whatever exceeds the last bound is told as that.
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
    """Numbers and how often each was counted, as the store keeps them: `0:17 5:1`."""
    return " ".join(f"{int(number)}:{count}" for number, count in sorted(counts.items()) if count)


def parse_sparse(text: str) -> dict[int, int]:
    """What `sparse_text` wrote."""
    pairs = (pair.split(":") for pair in text.split())
    return {int(number): int(count) for number, count in pairs}
