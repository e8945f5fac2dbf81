"""Lanes with a rate limit."""

from itertools import pairwise

import pytest

from uplift_server.core.scheduling.lanes import Lanes
from uplift_server.core.scheduling.rate_limit import LATENESS_CREDIT_MS, start_interval_ms

from .lanes import NOW_MS, drain, fill, lane_of, start_and_succeed


def test_a_rate_limit_spaces_starts() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, start_interval_ms=100)
    fill(lanes, lane, 5)

    starts = [now for now in range(NOW_MS, NOW_MS + 1000) for _ in range(start_and_succeed(lanes, lane, now))]
    assert [later - earlier for earlier, later in pairwise(starts)] == [80, 100, 100, 100]


def test_a_timer_that_fires_late_does_not_lower_a_high_rate() -> None:
    lanes: Lanes[int] = Lanes(100_000)
    lane = lane_of(lanes, start_interval_ms=2, in_flight_max=100_000)
    fill(lanes, lane, 1000)

    assert sum(start_and_succeed(lanes, lane, now) for now in range(NOW_MS, NOW_MS + 1000, 10)) >= 500


@pytest.mark.parametrize("rate", [1, 2, 7, 10, 50, 333, 1000, 5000])
@pytest.mark.parametrize("every_ms", [1, 3, 15, 20, 45])
def test_no_second_exceeds_the_limit_and_most_of_it_is_used(rate: int, every_ms: int) -> None:
    """The test starts attempts only every `every_ms`, so that starts can be late."""
    lanes: Lanes[int] = Lanes(100_000)
    lane = lane_of(lanes, start_interval_ms=start_interval_ms(rate), in_flight_max=100_000)
    fill(lanes, lane, 4 * rate)
    starts = [now for now in range(NOW_MS, NOW_MS + 3000, every_ms) for _ in range(start_and_succeed(lanes, lane, now))]

    assert all(later - earlier >= 1000 for earlier, later in zip(starts, starts[rate:], strict=False))
    if every_ms <= LATENESS_CREDIT_MS:
        assert len(starts) >= int(rate * 3 * 0.98) - 1


def test_a_changed_rate_counts_from_the_last_start() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, start_interval_ms=1000)
    fill(lanes, lane, 10)
    assert len(drain(lanes)) == 1
    for gap, at in ((100, 80), (5000, 4980), (20, 0)):
        lanes.set_limits(lane, in_flight_max=1000, start_interval_ms=gap)
        assert lane.next_start_at() == NOW_MS + at
    lanes.set_limits(lane, in_flight_max=1000, start_interval_ms=0.0)
    assert len(drain(lanes)) == 9


def test_a_rate_limited_lane_allows_one_requested_attempt_early() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, start_interval_ms=1000)
    assert lanes.start_now(lane, NOW_MS) is None
    assert lanes.start_now(lane, NOW_MS) is None
    assert lanes.start_now(lane, NOW_MS) is not None
    assert lanes.start_now(lane, NOW_MS + 979) is not None
    assert lanes.start_now(lane, NOW_MS + 980) is None
    # Requested attempts count toward the rate limit of the lane.
    fill(lanes, lane, 1)
    assert drain(lanes, NOW_MS + 2979) == []
    assert len(drain(lanes, NOW_MS + 2980)) == 1


def test_the_next_start_of_a_rate_limited_lane_is_known() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, start_interval_ms=100)
    fill(lanes, lane, 2)
    assert lanes.next_start_at() is None

    assert len(drain(lanes)) == 1

    assert lanes.next_start_at() == lane.next_start_at() == NOW_MS + 80


def test_an_attempt_that_did_not_start_is_not_counted() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, start_interval_ms=1000)
    fill(lanes, lane, 10)
    for _ in range(9):
        assert lanes.pop(NOW_MS) is not None
        lanes.attempt_ended(lane, NOW_MS + 1, 0)

    assert len(drain(lanes)) == 1
    assert (lane.mean_us, lane.last_end_ms) == (0, NOW_MS)
