"""What attempts tell of an endpoint's health."""

from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.health import Health
from uplift_server.core.outcomes import Outcome

NOW_MS = 1_764_000_000_000
FAILURES = [outcome for outcome in Outcome if outcome is not Outcome.DELIVERED]


def test_nothing_is_known_before_the_first_attempt() -> None:
    assert Health().status == "unknown"


def test_a_success_makes_it_healthy() -> None:
    health = Health().after(Outcome.DELIVERED, NOW_MS, ours=False)

    assert health == Health(0, None, NOW_MS, None, Outcome.DELIVERED)
    assert health.status == "healthy"


def test_it_fails_since_the_first_failure_in_a_row() -> None:
    health = Health()
    for minute in range(3):
        health = health.after(Outcome.TIMEOUT, NOW_MS + 60_000 * minute, ours=False)

    assert health == Health(3, NOW_MS, None, NOW_MS + 120_000, Outcome.TIMEOUT)
    assert health.status == "failing"


def test_one_success_clears_the_clock_and_remembers_when_it_failed_last() -> None:
    failing = Health().after(Outcome.SERVER_ERROR, NOW_MS, ours=False)

    assert failing.after(Outcome.DELIVERED, NOW_MS + 5, ours=False) == Health(
        0, None, NOW_MS + 5, NOW_MS, Outcome.DELIVERED
    )


def test_a_failure_after_a_success_starts_the_clock_anew() -> None:
    well = Health(0, None, NOW_MS, NOW_MS - 50, Outcome.DELIVERED)
    failing = well.after(Outcome.DNS_ERROR, NOW_MS + 10, ours=False)

    assert failing == Health(1, NOW_MS + 10, NOW_MS, NOW_MS + 10, Outcome.DNS_ERROR)


def test_failures_of_ours_change_nothing() -> None:
    for health in (Health(), Health(2, NOW_MS, None, NOW_MS, Outcome.TIMEOUT)):
        assert health.after(Outcome.BLOCKED, NOW_MS + 1, ours=True) == health


@given(st.lists(st.tuples(st.sampled_from(Outcome), st.integers(0, 1000), st.booleans())))
def test_the_clock_runs_exactly_from_the_first_failure_since_the_last_success(
    attempts: list[tuple[Outcome, int, bool]],
) -> None:
    health, now, row = Health(), NOW_MS, []
    for outcome, passed, ours in attempts:
        now += passed
        health = health.after(outcome, now, ours=ours)
        if outcome is Outcome.DELIVERED:
            row = []
        elif not ours:
            row.append(now)
        assert health.consecutive_failures == len(row)
        assert health.failing_since == (row[0] if row else None)
        assert (health.status == "failing") == bool(row)
