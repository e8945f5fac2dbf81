"""Statistics as charts and text."""

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.operations.statistics import HOUR_MS, Bucket, Period, Series, Statistics
from uplift_server.dashboard import figures

BUSY = Statistics(
    deliveries=10,
    delivered=6,
    failed=1,
    held=1,
    attempts=9,
    outcomes={Outcome.DELIVERED: 6, Outcome.TIMEOUT: 1, Outcome.SERVER_ERROR: 1, Outcome.DNS_ERROR: 1},
    durations={5: 9},
)
HOURLY = Series(HOUR_MS, BUSY, (Bucket(0, Statistics()), Bucket(23 * HOUR_MS, BUSY)))


def test_the_period_defaults_to_the_last_day() -> None:
    assert figures.period_of("7d") is Period.LAST_7_DAYS
    assert figures.period_of("") is figures.period_of("1y") is Period.LAST_24_HOURS
    assert set(figures.PERIODS) == set(Period)


def test_columns_have_a_time_range_and_counts() -> None:
    first, second = figures.status_columns(HOURLY)
    assert first.title == "Jan 1, 00:00 to 01:00 UTC: none"
    assert second.title == "Jan 1, 23:00 to 00:00 UTC: 6 delivered, 2 pending, 1 held, 1 failed"
    assert [(part.kind, part.value) for part in figures.attempt_columns(HOURLY)[1].parts] == [
        ("delivered", 6),
        ("failed", 3),
    ]


def test_latency_lines_have_gaps_without_attempts() -> None:
    labels, (p50, p95) = figures.latency_lines(HOURLY)
    assert len(labels) == 2
    assert p50.values == (None, BUSY.p50_ms)
    assert p95.values == (None, BUSY.p95_ms)
    assert BUSY.p50_ms is not None


def test_failures_are_counted_by_class_in_descending_order() -> None:
    counted = Statistics(outcomes={Outcome.DELIVERED: 9, Outcome.DNS_ERROR: 1, Outcome.TIMEOUT: 2, Outcome.REDIRECT: 1})
    found = figures.failure_counts(counted)
    assert [(name, count) for name, count, _ in found] == [("Timeout", 2), ("Redirect", 1), ("DNS error", 1)]
    assert [tuple(part.value for part in parts) for _, _, parts in found] == [(2, 2), (1, 3), (1, 3)]


def test_success_rates_and_summaries() -> None:
    assert figures.success_share(BUSY) == 6 / 9
    assert figures.success_share(Statistics()) is None
    assert figures.attempt_words(BUSY) == "6 attempts succeeded, 3 failed"
    assert figures.attempt_words(Statistics(outcomes={Outcome.DELIVERED: 1})) == "1 attempt succeeded, 0 failed"
    assert figures.status_words(BUSY) == "6 delivered, 2 pending, 1 held, 1 failed"
    assert figures.status_words(Statistics(deliveries=12_000, delivered=12_000)) == "12,000 delivered"
    assert figures.status_words(Statistics()) == "no deliveries"
