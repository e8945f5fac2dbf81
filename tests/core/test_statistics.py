"""Periods and their buckets, sums, and percentiles of durations."""

from bisect import bisect_right
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.operations.statistics import (
    COUNT_FIELDS,
    DURATION_BOUNDS_US,
    HOUR_MS,
    MINUTE_MS,
    Period,
    Span,
    Statistics,
    parse_sparse,
    percentile_ms,
    series,
    sparse_text,
    total,
)

NOON = 1_764_000_000_000 - 1_764_000_000_000 % (24 * HOUR_MS) + 12 * HOUR_MS
DAY_MS = 24 * HOUR_MS

counts = st.integers(0, 10**9)
some_numbers = st.builds(
    Statistics,
    **dict.fromkeys(COUNT_FIELDS, counts),
    outcomes=st.dictionaries(st.sampled_from(Outcome), st.integers(1, 10**6)),
    durations=st.dictionaries(st.integers(0, len(DURATION_BOUNDS_US)), st.integers(1, 10**6)),
)


@pytest.mark.parametrize(
    ("name", "buckets", "bucket_ms", "first", "last"),
    [
        ("1h", 60, MINUTE_MS, NOON - 59 * MINUTE_MS, NOON),
        ("24h", 24, HOUR_MS, NOON - 23 * HOUR_MS, NOON),
        ("7d", 28, 6 * HOUR_MS, NOON - 27 * 6 * HOUR_MS, NOON),
        ("30d", 30, DAY_MS, NOON - 12 * HOUR_MS - 29 * DAY_MS, NOON - 12 * HOUR_MS),
    ],
)
def test_periods_end_with_the_incomplete_bucket(name: str, buckets: int, bucket_ms: int, first: int, last: int) -> None:
    for now in (NOON, NOON + 1, NOON + min(bucket_ms, HOUR_MS) - 1):
        starts = Period(name).span.starts(now)
        assert (len(starts), starts.step, starts[0], starts[-1]) == (buckets, bucket_ms, first, last)


def test_hours_are_grouped_into_buckets() -> None:
    found = series(
        Span(3, 6 * HOUR_MS),
        NOON + 5,
        [
            (NOON + HOUR_MS, Statistics(deliveries=64)),
            (NOON, Statistics(deliveries=1, delivered=1, outcomes={Outcome.DELIVERED: 1}, durations={3: 1})),
            (NOON - HOUR_MS, Statistics(deliveries=2, outcomes={Outcome.TIMEOUT: 2}, durations={3: 1, 43: 1})),
            (NOON - 6 * HOUR_MS, Statistics(deliveries=4)),
            (NOON - 12 * HOUR_MS, Statistics(deliveries=8)),
            (NOON - 13 * HOUR_MS, Statistics(deliveries=16)),
            (NOON + 6 * HOUR_MS, Statistics(deliveries=32)),
        ],
    )
    assert [(bucket.at, bucket.statistics.deliveries) for bucket in found.buckets] == [
        (NOON - 12 * HOUR_MS, 8),
        (NOON - 6 * HOUR_MS, 6),
        (NOON, 65),
    ]
    assert found.bucket_ms == 6 * HOUR_MS
    assert found.totals == Statistics(
        deliveries=79, delivered=1, outcomes={Outcome.DELIVERED: 1, Outcome.TIMEOUT: 2}, durations={3: 2, 43: 1}
    )
    assert (found.totals.pending, found.totals.failures) == (78, {Outcome.TIMEOUT: 2})


def test_an_empty_bucket_has_no_rates() -> None:
    found = series(Period.LAST_24_HOURS.span, NOON, [])
    assert {bucket.statistics for bucket in found.buckets if bucket.statistics.attempts} == set()
    assert len(found.buckets) == 24
    nothing = found.totals
    assert (nothing.pending, nothing.first_try_rate, nothing.p50_ms, nothing.p95_ms) == (0, None, None, None)


@given(st.lists(some_numbers, max_size=5))
def test_a_total_counts_everything_once(several: list[Statistics]) -> None:
    together = total(several)
    for name in COUNT_FIELDS:
        assert getattr(together, name) == sum(getattr(each, name) for each in several)
    for outcome in Outcome:
        assert together.outcomes.get(outcome, 0) == sum(each.outcomes.get(outcome, 0) for each in several)
    assert sum(together.durations.values()) == sum(sum(each.durations.values()) for each in several)
    assert together == total(reversed(several))


def test_pending_is_the_rest() -> None:
    assert Statistics(deliveries=20, delivered=8, failed=4, held=2, cancelled=1).pending == 5
    assert Statistics(deliveries=1, delivered=2).pending == 0


def test_the_rate_is_that_of_first_attempts() -> None:
    assert Statistics(attempts=9, first_attempts=3, first_delivered=2).first_try_rate == 0.6667


# ---- durations


def test_bounds_grow_by_a_quarter_up_to_the_default_timeout() -> None:
    assert (DURATION_BOUNDS_US[0], DURATION_BOUNDS_US[-1]) == (1_000, 15_000_000)
    ratios = [high / low for low, high in pairwise(DURATION_BOUNDS_US)]
    assert min(ratios) >= 1.2
    assert max(ratios) < 1.3


def duration_class(duration_us: int) -> int:
    """Return the number of the class in which the store counts a duration."""
    return bisect_right(DURATION_BOUNDS_US, duration_us)


@pytest.mark.parametrize(
    ("durations_us", "p50", "p95"),
    [
        ([500], 0.5, 0.95),
        ([1_000], 1.12, 1.24),
        ([2_100] * 90 + [9_000] * 10, 2.28, 9.0),
        ([15_000_000], 15_000.0, 15_000.0),
        ([1_100] * 94 + [90_000_000] * 6, 1.13, 15_000.0),
    ],
)
def test_percentiles_are_interpolated_within_their_class(durations_us: list[int], p50: float, p95: float) -> None:
    durations: dict[int, int] = {}
    for each in durations_us:
        durations[duration_class(each)] = durations.get(duration_class(each), 0) + 1
    numbers = Statistics(durations=durations)
    assert (numbers.p50_ms, numbers.p95_ms) == (p50, p95)


@given(st.lists(st.integers(0, 14_999_999), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_in_the_class_of_the_exact_one(durations_us: list[int], share: float) -> None:
    durations: dict[int, int] = {}
    for each in durations_us:
        durations[duration_class(each)] = durations.get(duration_class(each), 0) + 1
    found = percentile_ms(durations, share)
    assert found is not None
    ranked = sorted(durations_us)
    # If the rank is between two values, the class of either is correct.
    classes = {duration_class(ranked[min(len(ranked) - 1, max(0, int(share * len(ranked)) + by))]) for by in (-1, 0, 1)}
    low = min(DURATION_BOUNDS_US[number - 1] if number else 0 for number in classes)
    high = max(DURATION_BOUNDS_US[number] for number in classes)
    assert low * 0.995 <= found * 1000 <= high * 1.005


# ---- sparse texts


def test_a_sparse_text_omits_zeros() -> None:
    assert sparse_text({5: 1, Outcome.DELIVERED: 17, 3: 0}) == "0:17 5:1"
    assert parse_sparse("") == {}


@given(st.dictionaries(st.integers(0, 99), st.integers(1, 10**12)))
def test_a_sparse_text_is_parsed_to_the_same_values(numbers: dict[int, int]) -> None:
    assert parse_sparse(sparse_text(numbers)) == numbers
