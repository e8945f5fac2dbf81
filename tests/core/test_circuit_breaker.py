"""A circuit breaker opens after failures, probes its endpoint, and closes after a success."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.deliveries.health import Health
from uplift_server.core.scheduling.circuit_breaker import (
    CLOSED,
    PROBE_FIRST_MS,
    TIMEOUTS_OPEN_AFTER_MS,
    Breaker,
    BreakerRule,
    restore_breaker,
)

NOW_MS = 1_764_000_000_000
RULE = BreakerRule(failures=3, probe_max_ms=300_000)
NEVER = BreakerRule(failures=0, probe_max_ms=300_000)


def fail(
    breaker: Breaker, times: int, *, at: int = NOW_MS, timed_out: bool = False, rule: BreakerRule = RULE
) -> Breaker:
    """Return a breaker after `times` failures at the time `at`."""
    for _ in range(times):
        breaker = breaker.after_failure(at, timed_out=timed_out, rule=rule)
    return breaker


def test_the_breaker_opens_after_consecutive_failures() -> None:
    assert fail(CLOSED, 2) == Breaker(failures=2)
    assert fail(CLOSED, 3) == Breaker(3, None, NOW_MS + PROBE_FIRST_MS, PROBE_FIRST_MS)


def test_a_success_resets_the_count() -> None:
    assert fail(fail(CLOSED, 2).after_success(NOW_MS), 2).probe_at is None


def test_a_success_closes_an_open_breaker() -> None:
    assert fail(CLOSED, 7).after_success(NOW_MS) == CLOSED


def test_each_failed_probe_doubles_the_wait_up_to_the_longest() -> None:
    breaker = fail(CLOSED, 3)
    waits = []
    for _ in range(11):
        at = breaker.probe_at
        assert at is not None
        waits.append(breaker.probe_wait_ms)
        breaker = breaker.after_failure(at, timed_out=False, rule=RULE)
        assert breaker.probe_at == at + breaker.probe_wait_ms
    assert waits == [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000]


def test_the_first_wait_is_at_most_the_longest() -> None:
    assert fail(CLOSED, 3, rule=BreakerRule(3, 10)).probe_at == NOW_MS + 10


def test_attempts_in_flight_at_the_opening_do_not_lengthen_the_wait() -> None:
    opened = fail(CLOSED, 3)
    later = fail(opened, 12, at=NOW_MS + PROBE_FIRST_MS - 1)

    assert (later.probe_at, later.probe_wait_ms) == (opened.probe_at, opened.probe_wait_ms)
    assert later.failures == 15


def test_the_breaker_opens_after_a_minute_of_only_timeouts() -> None:
    one = fail(CLOSED, 1, timed_out=True)

    assert fail(one, 1, at=NOW_MS + TIMEOUTS_OPEN_AFTER_MS - 1, timed_out=True).probe_at is None
    assert fail(one, 1, at=NOW_MS + TIMEOUTS_OPEN_AFTER_MS, timed_out=True).probe_at is not None


def test_any_other_failure_ends_a_series_of_timeouts() -> None:
    mixed = fail(fail(CLOSED, 1, timed_out=True), 1)

    assert mixed.timeouts_since is None
    rule = BreakerRule(100, 300_000)
    later = fail(mixed, 1, at=NOW_MS + TIMEOUTS_OPEN_AFTER_MS, timed_out=True, rule=rule)
    assert (later.probe_at, later.timeouts_since) == (None, NOW_MS + TIMEOUTS_OPEN_AFTER_MS)


def test_a_failed_probe_never_closes_the_breaker() -> None:
    """The breaker is opened by a few timeouts, and the probe then gets an error response."""
    opened = fail(fail(CLOSED, 1, timed_out=True), 1, at=NOW_MS + TIMEOUTS_OPEN_AFTER_MS, timed_out=True)
    assert opened.failures < RULE.failures
    assert opened.probe_at is not None

    probed = opened.after_failure(opened.probe_at, timed_out=False, rule=BreakerRule(10, 300_000))

    assert probed == Breaker(3, None, opened.probe_at + 2 * PROBE_FIRST_MS, 2 * PROBE_FIRST_MS)


def test_zero_failures_disable_the_breaker() -> None:
    breaker = fail(
        fail(CLOSED, 1000, timed_out=True, rule=NEVER), 1, at=NOW_MS + 10 * TIMEOUTS_OPEN_AFTER_MS, rule=NEVER
    )

    assert breaker == Breaker(failures=1001)


@pytest.mark.parametrize("failures", [RULE.failures, RULE.failures + 1, RULE.failures + 5, RULE.failures + 40])
def test_after_a_restart_an_open_breaker_keeps_its_probe_time(failures: int) -> None:
    breaker = CLOSED
    for number in range(failures):
        at = NOW_MS + number if breaker.probe_at is None else breaker.probe_at
        breaker = breaker.after_failure(at, timed_out=False, rule=RULE)

    assert restore_breaker(Health(failures, NOW_MS, None, at), RULE) == breaker


@pytest.mark.parametrize("wait_ms", [120_000, 10])
def test_after_a_restart_the_stored_probe_time_counts(wait_ms: int) -> None:
    """The number of failures alone would not open the breaker, but a `Retry-After` or timeouts did."""
    health = Health(1, NOW_MS, None, NOW_MS, probe_at=NOW_MS + wait_ms)
    restored = restore_breaker(health, RULE)
    assert (restored.failures, restored.probe_at) == (1, NOW_MS + wait_ms)
    probed = restored.after_failure(NOW_MS + wait_ms, timed_out=False, rule=RULE)
    assert probed.probe_at == NOW_MS + wait_ms + min(2 * max(wait_ms, PROBE_FIRST_MS), RULE.probe_max_ms)
    assert restore_breaker(health._replace(failing_since=None), RULE).probe_at is None
    assert restore_breaker(health, NEVER).probe_at is None


def test_after_a_restart_the_wait_is_bounded() -> None:
    assert restore_breaker(Health(10**9, None, None, NOW_MS), RULE).probe_at == NOW_MS + RULE.probe_max_ms


@pytest.mark.parametrize("apart_ms", [0, 3000])
def test_after_a_restart_concurrent_failures_do_not_lengthen_the_wait(apart_ms: int) -> None:
    """Attempts that were in flight when the breaker opened are not failed probes."""
    health = Health(RULE.failures + 246, NOW_MS - apart_ms, None, NOW_MS)
    assert restore_breaker(health, RULE).probe_at == NOW_MS + PROBE_FIRST_MS + apart_ms


def test_after_a_restart_failures_without_a_time_do_not_open_it() -> None:
    assert restore_breaker(Health(1000), RULE) == Breaker(1000)


def test_after_a_restart_counting_continues() -> None:
    assert restore_breaker(Health(2, NOW_MS, None, NOW_MS), RULE) == Breaker(2)
    assert fail(restore_breaker(Health(2, NOW_MS, None, NOW_MS), RULE), 1).probe_at is not None
    assert restore_breaker(Health(1000, NOW_MS, None, NOW_MS), NEVER) == Breaker(1000)


@given(
    steps=st.lists(st.tuples(st.integers(0, 120_000), st.booleans()), max_size=60),
    failures=st.integers(1, 5),
    probe_max_ms=st.integers(10, 600_000),
)
def test_after_any_failures_the_breaker_has_a_near_probe(
    steps: list[tuple[int, bool]], failures: int, probe_max_ms: int
) -> None:
    rule = BreakerRule(failures, probe_max_ms)
    breaker, now = CLOSED, NOW_MS
    for count, (passed, timed_out) in enumerate(steps, 1):
        now += passed
        before, breaker = breaker, breaker.after_failure(now, timed_out=timed_out, rule=rule)
        assert breaker.failures == count
        if before.probe_at is not None or count >= failures:
            assert breaker.probe_at is not None
        if breaker.probe_at is not None:
            assert now < breaker.probe_at <= now + probe_max_ms
            assert breaker.probe_wait_ms >= before.probe_wait_ms


# ---- Retry-After


def test_retry_after_opens_the_breaker_at_the_first_failure() -> None:
    opened = CLOSED.after_failure(NOW_MS, timed_out=False, rule=RULE, retry_after_ms=30_000)

    assert opened == Breaker(1, None, NOW_MS + 30_000, 0, NOW_MS)
    assert CLOSED.after_failure(NOW_MS, timed_out=False, rule=RULE, retry_after_ms=0).probe_at is None


def test_retry_after_is_bounded_like_the_wait_for_a_probe() -> None:
    assert (
        CLOSED.after_failure(NOW_MS, timed_out=False, rule=RULE, retry_after_ms=86_400_000).probe_at == NOW_MS + 300_000
    )


def test_a_disabled_breaker_ignores_retry_after() -> None:
    assert CLOSED.after_failure(NOW_MS, timed_out=False, rule=NEVER, retry_after_ms=30_000) == Breaker(1)


def test_only_a_success_after_retry_after_ends_the_wait() -> None:
    opened = CLOSED.after_failure(NOW_MS, timed_out=False, rule=RULE, retry_after_ms=30_000)

    assert opened.after_success(NOW_MS - 1) == opened
    assert opened.after_success(NOW_MS) == CLOSED


def test_attempts_in_flight_never_shorten_the_wait() -> None:
    opened = CLOSED.after_failure(NOW_MS, timed_out=False, rule=RULE, retry_after_ms=30_000)

    for retry_after, probe_at in ((0, 30_000), (5_000, 30_000), (60_000, 60_100)):
        assert (
            opened.after_failure(NOW_MS + 100, timed_out=False, rule=RULE, retry_after_ms=retry_after).probe_at
            == NOW_MS + probe_at
        )


def test_a_failed_probe_without_retry_after_starts_the_usual_waits() -> None:
    opened = CLOSED.after_failure(NOW_MS, timed_out=False, rule=RULE, retry_after_ms=30_000)
    at = NOW_MS + 30_000

    assert opened.after_failure(at, timed_out=False, rule=RULE).probe_at == at + PROBE_FIRST_MS


def test_retry_after_does_not_shorten_the_usual_wait() -> None:
    opened = fail(CLOSED, 3)
    at = NOW_MS + PROBE_FIRST_MS

    assert opened.after_failure(at, timed_out=False, rule=RULE, retry_after_ms=10).probe_at == at + 2 * PROBE_FIRST_MS


@given(st.lists(st.tuples(st.integers(0, 400_000), st.booleans(), st.integers(0, 400_000)), max_size=30))
def test_no_wait_exceeds_the_maximum(steps: list[tuple[int, bool, int]]) -> None:
    breaker, now = CLOSED, NOW_MS
    for passed, timed_out, retry_after_ms in steps:
        now += passed
        breaker = breaker.after_failure(now, timed_out=timed_out, rule=RULE, retry_after_ms=retry_after_ms)
        assert breaker.probe_at is None or breaker.probe_at <= now + RULE.probe_max_ms
        assert retry_after_ms == 0 or (breaker.probe_at or 0) >= now + min(retry_after_ms, RULE.probe_max_ms)
