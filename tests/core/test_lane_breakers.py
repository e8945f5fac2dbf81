"""Lanes with an open circuit breaker."""

from uplift_server.core.scheduling.circuit_breaker import Breaker
from uplift_server.core.scheduling.lanes import Lanes

from .lanes import NOW_MS, OPEN, drain, fill, lane_of


def test_an_open_breaker_allows_one_probe_when_it_is_due() -> None:
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


def test_a_success_releases_deliveries_that_wait_for_a_probe() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes)
    fill(lanes, lane, 1)
    assert len(drain(lanes)) == 1
    lane.breaker = OPEN
    # Add a second attempt in flight. When it ends, nothing starts, and the lane waits for its probe.
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


def test_a_closed_breaker_delays_no_new_delivery() -> None:
    """The lane was empty when the breaker closed."""
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


def test_void_timers_are_ignored() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, start_interval_ms=1000)
    fill(lanes, lane, 5)
    assert len(drain(lanes)) == 1
    lane.next_start_ms = NOW_MS + 10.0
    lanes.set_limits(lane, in_flight_max=1000, start_interval_ms=0.0)
    fill(lanes, lane_of(lanes, 2), 4)

    for each in (1, 2):
        lanes.lane(each, 1, f"{each}.test").last_end_ms = NOW_MS + 2000
    # If a void timer added a second queue entry for a lane, the lane would be served twice as often.
    assert [endpoint for endpoint, _ in drain(lanes, NOW_MS + 2000)] == [1, 2] * 4
