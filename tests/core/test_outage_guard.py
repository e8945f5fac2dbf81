import random

from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.deliveries.outage_guard import ENDPOINTS_MIN, WITHIN_MS, FailureGroup, largest_group

NOW = 1_764_000_000_000
_TIMESTAMPS = st.lists(st.integers(0, 20 * WITHIN_MS), max_size=40)


def test_fewer_than_ten_endpoints_are_not_a_group() -> None:
    assert largest_group([NOW] * (ENDPOINTS_MIN - 1)) is None
    assert largest_group([NOW] * ENDPOINTS_MIN) == FailureGroup(NOW, ENDPOINTS_MIN)


def test_a_group_spans_at_most_an_hour() -> None:
    within = [NOW + n * WITHIN_MS // 9 for n in range(10)]
    assert largest_group(within) == FailureGroup(NOW, 10)
    group = largest_group([*within[:-1], NOW + WITHIN_MS + 1])
    assert group is not None
    assert group.endpoints == 9


def test_the_earliest_of_equal_groups_is_returned() -> None:
    assert largest_group([NOW] * 5 + [NOW + 3 * WITHIN_MS] * 6 + [NOW + 9 * WITHIN_MS] * 6) == FailureGroup(
        NOW + 3 * WITHIN_MS, 6
    )


def test_a_mass_failure_is_ten_endpoints_and_half_of_those_attempted() -> None:
    assert FailureGroup(NOW, 10).is_mass_failure(20)
    assert not FailureGroup(NOW, 10).is_mass_failure(21)
    assert not FailureGroup(NOW, 9).is_mass_failure(9)
    assert FailureGroup(NOW, 10).is_mass_failure(0)


@given(_TIMESTAMPS, st.randoms(use_true_random=False))
def test_no_other_hour_has_more_endpoints(failing_since: list[int], shuffle: random.Random) -> None:
    mixed = list(failing_since)
    shuffle.shuffle(mixed)
    group = largest_group(mixed)
    if group is None:
        assert len(failing_since) < ENDPOINTS_MIN
        return
    counts = {start: sum(start <= at <= start + WITHIN_MS for at in failing_since) for start in failing_since}
    assert group.endpoints == max(counts.values())
    assert group.since == min(start for start, count in counts.items() if count == group.endpoints)
