"""Lanes with an open circuit breaker."""

from uplift_server.core.scheduling.circuit_breaker import Breaker
from uplift_server.core.scheduling.lanes import Lanes

from .lanes import NOW_MS, OPEN, drain, fill, lane_of


def test_an_open_breaker_lets_one_probe_through_when_it_is_time() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes)
    lane.breaker = OPEN
    fill(lanes, lane, 3)

    assert drain(lanes, NOW_MS + 999) == []
    assert lanes.next_start_at() == NOW_MS + 1000
    assert len(drain(lanes, NOW_MS + 1000)) == 1
    lane.breaker = Breaker(11, None, NOW_MS + 3000, 2000)
    lanes.attempt_ended(lane, NOW_MS + 1001, 1000)
    assert drain(lanes, NOW_MS + 2999) == []
    assert len(drain(lanes, NOW_MS + 3000)) == 1


def test_what_waited_for_a_probe_goes_out_as_soon_as_an_earlier_attempt_succeeds() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes)
    fill(lanes, lane, 1)
    assert len(drain(lanes)) == 1
    lane.breaker = OPEN
    # A second one in flight comes back without changing anything, so that the lane waits for its probe.
    lane.in_flight += 1
    lanes.in_flight += 1
    fill(lanes, lane, 3)
    lanes.attempt_ended(lane, NOW_MS, 1000)
    lanes.attempt_ended(lane, NOW_MS, 1000)
    assert drain(lanes, NOW_MS + 1) == []
    assert lanes.next_start_at() == NOW_MS + 1000

    lane.breaker = lane.breaker.after_success(NOW_MS)
    lanes.set_limits(lane, in_flight_max=1000, start_interval_ms=0.0)

    assert lanes.next_start_at() is None
    assert len(drain(lanes, NOW_MS + 2)) == 3
    assert drain(lanes, NOW_MS + 1000) == []


def test_what_comes_after_the_breaker_closed_does_not_wait_for_its_probe() -> None:
    """Although the lane was empty when it closed, and so nothing of it was looked at then."""
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes)
    fill(lanes, lane, 1)
    assert len(drain(lanes)) == 1
    lane.in_flight += 1
    lanes.in_flight += 1
    lane.breaker = OPEN
    fill(lanes, lane, 1)
    for _ in range(2):
        lanes.attempt_ended(lane, NOW_MS, 1000)
    assert drain(lanes) == []
    assert lanes.take_waiting(lane) == [0]
    lane.breaker = lane.breaker.after_success(NOW_MS)

    fill(lanes, lane, 1)
    assert drain(lanes) == [(1, 0)]


def test_an_entry_made_void_is_passed_over_when_its_instant_comes() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, start_interval_ms=1000)
    fill(lanes, lane, 5)
    assert len(drain(lanes)) == 1
    lane.next_start_ms = NOW_MS + 10.0
    lanes.set_limits(lane, in_flight_max=1000, start_interval_ms=0.0)
    fill(lanes, lane_of(lanes, 2), 4)

    for each in (1, 2):
        lanes.lane(each, 1, f"{each}.test").last_return_ms = NOW_MS + 2000
    # Standing in the queue twice, it would be served twice as often.
    assert [endpoint for endpoint, _ in drain(lanes, NOW_MS + 2000)] == [1, 2] * 4
