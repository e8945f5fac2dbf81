"""The health of an endpoint: how attempts change it, and when the endpoint is warned, disabled or recovered."""

from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.deliveries.health import FAILURES_MIN, Health, HealthAction, HealthRule
from uplift_server.core.deliveries.outcomes import Outcome

NOW_MS = 1_764_000_000_000
FAILURES = [outcome for outcome in Outcome if outcome is not Outcome.DELIVERED]


def test_health_is_unknown_before_the_first_attempt() -> None:
    assert Health().status == "unknown"


def test_a_success_makes_an_endpoint_healthy() -> None:
    health = Health().after(Outcome.DELIVERED, NOW_MS, own_fault=False)

    assert health == Health(0, None, NOW_MS, None, Outcome.DELIVERED)
    assert health.status == "healthy"


def test_failing_since_is_the_first_consecutive_failure() -> None:
    health = Health()
    for minute in range(3):
        health = health.after(Outcome.TIMEOUT, NOW_MS + 60_000 * minute, own_fault=False)

    assert health == Health(3, NOW_MS, None, NOW_MS + 120_000, Outcome.TIMEOUT)
    assert health.status == "failing"


def test_a_success_resets_failing_since_and_keeps_the_last_failure() -> None:
    failing = Health().after(Outcome.SERVER_ERROR, NOW_MS, own_fault=False)

    assert failing.after(Outcome.DELIVERED, NOW_MS + 5, own_fault=False) == Health(
        0, None, NOW_MS + 5, NOW_MS, Outcome.DELIVERED
    )


def test_a_failure_after_a_success_restarts_failing_since() -> None:
    recovered = Health(0, None, NOW_MS, NOW_MS - 50, Outcome.DELIVERED)
    failing = recovered.after(Outcome.DNS_ERROR, NOW_MS + 10, own_fault=False)

    assert failing == Health(1, NOW_MS + 10, NOW_MS, NOW_MS + 10, Outcome.DNS_ERROR)


def test_health_describes_the_last_counted_attempt() -> None:
    failing = Health(probe_at=NOW_MS).after(
        Outcome.REDIRECT, NOW_MS, own_fault=False, status_code=302, error="e", location="https://a/"
    )
    assert (failing.last_status_code, failing.last_error, failing.last_location) == (302, "e", "https://a/")
    assert failing.probe_at == NOW_MS, "the circuit breaker decides"
    assert failing.last_response == "e", "after a response, the error is its first line"
    assert failing.after(Outcome.TIMEOUT, NOW_MS, own_fault=False, error="e").last_response is None
    assert failing.after(Outcome.BLOCKED, NOW_MS, own_fault=True, error="ours") == failing
    healthy = failing.after(Outcome.DELIVERED, NOW_MS, own_fault=False, status_code=204, error="sent twice")
    assert healthy.last_status_code == 204
    assert healthy.last_error is healthy.last_location is healthy.probe_at is None


def test_own_faults_change_nothing() -> None:
    for health in (Health(), Health(2, NOW_MS, None, NOW_MS, Outcome.TIMEOUT)):
        assert health.after(Outcome.BLOCKED, NOW_MS + 1, own_fault=True) == health


@given(st.lists(st.tuples(st.sampled_from(Outcome), st.integers(0, 1000), st.booleans())))
def test_failing_since_is_the_first_failure_after_a_success(
    attempts: list[tuple[Outcome, int, bool]],
) -> None:
    health, now, failures = Health(), NOW_MS, []
    for outcome, passed, own_fault in attempts:
        now += passed
        health = health.after(outcome, now, own_fault=own_fault)
        if outcome is Outcome.DELIVERED:
            failures = []
        elif not own_fault:
            failures.append(now)
        assert health.consecutive_failures == len(failures)
        assert health.failing_since == (failures[0] if failures else None)
        assert (health.status == "failing") == bool(failures)


DAY_MS = 24 * 3600 * 1000
RULE = HealthRule(warn_after_ms=3 * DAY_MS, disable_after_ms=5 * DAY_MS)


def failing(failures: int = FAILURES_MIN, **changes: int) -> Health:
    return Health(failures, NOW_MS, None, NOW_MS + 1, Outcome.TIMEOUT)._replace(**changes)


def test_an_endpoint_is_warned_on_day_three_and_disabled_on_day_five() -> None:
    health = failing()

    assert health.warn_at(RULE) == NOW_MS + 3 * DAY_MS
    assert health.disable_at(RULE) == NOW_MS + 5 * DAY_MS
    assert health.next_action(NOW_MS + 3 * DAY_MS - 1, RULE) is None
    assert health.next_action(NOW_MS + 3 * DAY_MS, RULE) is HealthAction.WARN

    warned = health._replace(warned_at=NOW_MS + 3 * DAY_MS)
    assert warned.status == "warned"
    assert warned.warn_at(RULE) is None
    assert warned.next_action(NOW_MS + 5 * DAY_MS - 1, RULE) is None
    assert warned.next_action(NOW_MS + 5 * DAY_MS, RULE) is HealthAction.DISABLE


def test_a_few_failures_cause_no_warning() -> None:
    assert failing(FAILURES_MIN - 1).next_action(NOW_MS + 90 * DAY_MS, RULE) is None


def test_a_late_warning_delays_disabling() -> None:
    """The server was down from the second day to the sixth, so the warning came three days late."""
    unwarned = failing()
    assert unwarned.next_action(NOW_MS + 6 * DAY_MS, RULE) is HealthAction.WARN

    warned = unwarned._replace(warned_at=NOW_MS + 6 * DAY_MS)
    assert warned.disable_at(RULE) == NOW_MS + 8 * DAY_MS
    assert warned.next_action(NOW_MS + 8 * DAY_MS - 1, RULE) is None
    assert warned.next_action(NOW_MS + 8 * DAY_MS, RULE) is HealthAction.DISABLE


def test_a_recovery_is_reported_even_after_new_failures() -> None:
    warned = failing(warned_at=NOW_MS + 3 * DAY_MS)
    recovered = warned.after(Outcome.DELIVERED, NOW_MS + 4 * DAY_MS, own_fault=False)
    again = recovered.after(Outcome.TIMEOUT, NOW_MS + 4 * DAY_MS + 1, own_fault=False)

    for health in (recovered, again):
        assert not health.warned
        assert health.next_action(NOW_MS + 4 * DAY_MS + 1, RULE) is HealthAction.RECOVER
        assert health._replace(warned_at=None).next_action(NOW_MS + 4 * DAY_MS + 1, RULE) is None
    assert again.status == "failing"
    assert again.disable_at(RULE) == NOW_MS + 9 * DAY_MS + 1


def test_excused_time_delays_all_actions() -> None:
    health = failing()._replace(excused_ms=DAY_MS)

    assert health.warn_at(RULE) == NOW_MS + 4 * DAY_MS
    assert health.disable_at(RULE) == NOW_MS + 6 * DAY_MS
    assert health.after(Outcome.DELIVERED, NOW_MS + DAY_MS, own_fault=False).excused_ms == 0


def test_excused_time_of_a_process_counts_only_for_the_same_failure() -> None:
    health = failing()
    excused = health._replace(excused_ms=DAY_MS)
    assert health.with_excused_time_of(excused) == excused
    assert excused.with_excused_time_of(health) == excused
    earlier = excused._replace(failing_since=NOW_MS - DAY_MS)
    assert health.with_excused_time_of(earlier) == health
    assert Health().with_excused_time_of(Health(excused_ms=1)) == Health()


def test_a_success_of_a_process_counts_unless_a_later_attempt_failed() -> None:
    health = failing()._replace(warned_at=NOW_MS)
    failed_at = health.last_failure_at or 0
    recovered = Health(0, None, failed_at + 1, failed_at, Outcome.DELIVERED)
    assert health.with_success_of(recovered) == recovered._replace(warned_at=NOW_MS)
    for other in (recovered._replace(last_success_at=failed_at), recovered._replace(failing_since=NOW_MS), Health()):
        assert health.with_success_of(other) == health
    assert recovered.with_success_of(recovered._replace(last_success_at=NOW_MS + DAY_MS)) == recovered


def test_a_healthy_endpoint_has_no_actions() -> None:
    for health in (Health(), Health(0, None, NOW_MS, None, Outcome.DELIVERED)):
        assert health.warn_at(RULE) is health.disable_at(RULE) is health.next_action(NOW_MS + 90 * DAY_MS, RULE) is None


def test_an_erased_error_is_removed_only_from_the_same_failure() -> None:
    health = Health(failing_since=1, last_failure_at=5, last_error="Hello Zebulon", last_location="https://a.example")
    erased = health._replace(last_error=None, last_location=None)
    assert health.with_erased_error_of(erased) == erased
    assert health.with_erased_error_of(health) == health
    redirected = health._replace(last_error=None)
    assert redirected.with_erased_error_of(redirected) == redirected
    assert health.with_erased_error_of(erased._replace(last_failure_at=4)) == health
