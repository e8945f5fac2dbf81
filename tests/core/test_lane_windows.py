"""Limits on attempts in flight: the window of one lane, and the slots that all unproven lanes leave free."""

from collections import Counter

from uplift_server.core.scheduling.lane import STALLED_MEANS, WINDOW_START
from uplift_server.core.scheduling.lanes import Lanes

from .lanes import NOW_MS, drain, fill, fresh_lane, lane_of


def test_the_window_grows_with_successes_and_resets_at_a_timeout() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = fresh_lane(lanes, 1, items=100)
    assert len(drain(lanes)) == WINDOW_START

    for more in range(1, 30):
        lanes.attempt_ended(lane, NOW_MS, 1000, succeeded=True)
        assert len(drain(lanes)) == (2 if more <= 16 - WINDOW_START else 1)
    assert lane.in_flight == lane.window == lane.in_flight_max

    lanes.attempt_ended(lane, NOW_MS, 15_000_000, succeeded=False)
    assert lane.window == 1
    for _ in range(14):
        lanes.attempt_ended(lane, NOW_MS, 1000)
        assert drain(lanes) == []
    lanes.attempt_ended(lane, NOW_MS, 1000)
    assert len(drain(lanes)) == 1


def test_other_failures_do_not_change_the_window() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = fresh_lane(lanes, 1)
    assert len(drain(lanes)) == WINDOW_START
    lanes.attempt_ended(lane, NOW_MS, 1000)
    assert (lane.window, lane.proven, lane.mean_us) == (WINDOW_START, False, 0)


def test_a_receiver_that_begins_to_hang_gets_few_more_attempts() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes)
    lane.mean_us = 50_000
    fill(lanes, lane, 100)
    later = NOW_MS + 50 * STALLED_MEANS + 1

    assert len(drain(lanes, later, most=100)) == WINDOW_START
    lanes.attempt_ended(lane, later, 1000, succeeded=True)
    assert len(drain(lanes, later)) == 100 - WINDOW_START


def test_unproven_lanes_leave_slots_free() -> None:
    lanes: Lanes[int] = Lanes(8)
    for endpoint in range(1, 6):
        fresh_lane(lanes, endpoint)
    assert len(drain(lanes)) == 6

    fill(lanes, lane_of(lanes, 9), 5)
    assert drain(lanes) == [(9, 0), (9, 1)]


def test_a_parked_lane_gets_a_slot_before_the_lane_that_freed_it() -> None:
    lanes: Lanes[int] = Lanes(4)
    one = fresh_lane(lanes, 1, items=3)
    assert len(drain(lanes)) == 3
    two, three = fresh_lane(lanes, 2), fresh_lane(lanes, 3)
    fill(lanes, one, 5)
    assert drain(lanes) == []
    assert two.parked
    assert three.parked

    for _ in range(2):
        lanes.attempt_ended(one, NOW_MS, 1000)
    assert drain(lanes) == [(2, 0), (3, 0)]


def test_several_free_slots_release_several_parked_lanes() -> None:
    lanes: Lanes[int] = Lanes(4)
    one = fresh_lane(lanes, 1, items=3)
    assert len(drain(lanes)) == 3
    for endpoint in (2, 3, 4, 5):
        fresh_lane(lanes, endpoint, items=1)
    assert drain(lanes) == []

    # The lane is now proven, so its other two attempts in flight no longer count as unproven.
    lanes.attempt_ended(one, NOW_MS, 1000, succeeded=True)

    assert drain(lanes) == [(2, 0), (3, 0)]
    lanes.attempt_ended(one, NOW_MS, 1000, succeeded=True)
    assert drain(lanes) == [(4, 0)]


def test_a_parked_lane_that_becomes_proven_starts_attempts() -> None:
    lanes: Lanes[int] = Lanes(8)
    proven = fresh_lane(lanes, 1, items=1)
    assert len(drain(lanes)) == 1
    for endpoint in (2, 3):
        fresh_lane(lanes, endpoint)
    assert len(drain(lanes)) == 5
    fill(lanes, proven, 2)
    assert drain(lanes) == []
    assert proven.parked
    # The lane is now proven, and its unproven slot goes to another lane.
    lanes.attempt_ended(proven, NOW_MS, 1000, succeeded=True)

    assert Counter(endpoint for endpoint, _ in drain(lanes)) == {1: 2, 3: 1}


def test_void_parked_entries_use_no_slot() -> None:
    lanes: Lanes[int] = Lanes(4)
    proven = fresh_lane(lanes, 1, items=1)
    fresh_lane(lanes, 2, items=2)
    assert len(drain(lanes)) == 3
    fill(lanes, proven, 1)
    assert drain(lanes) == []
    fresh_lane(lanes, 3, items=1)
    assert drain(lanes) == []

    lanes.attempt_ended(proven, NOW_MS, 1000, succeeded=True)

    assert drain(lanes) == [(1, 0), (3, 0)]


def test_parked_lanes_continue_after_one_is_dropped() -> None:
    lanes: Lanes[int] = Lanes(4)
    one = fresh_lane(lanes, 1, items=3)
    assert len(drain(lanes)) == 3
    for endpoint in (2, 3):
        fresh_lane(lanes, endpoint, items=1)
    assert drain(lanes) == []
    lanes.drop(2)

    # The dropped lane was next for this slot. No other attempt ends, so this slot must go to the next lane.
    lanes.attempt_ended(one, NOW_MS, 1000)

    assert drain(lanes) == [(3, 0)]


def test_a_parked_lane_with_a_new_rate_limit_waits_for_slot_and_timer() -> None:
    lanes: Lanes[int] = Lanes(4)
    one, two = fresh_lane(lanes, 1, items=3), lanes.lane(2, 1, "2.test")
    lanes.set_limits(two, in_flight_max=16, start_interval_ms=20)
    assert len(drain(lanes)) == 3
    two.next_start_ms = NOW_MS
    fill(lanes, two, 1)
    assert drain(lanes) == []
    assert two.parked

    lanes.set_limits(two, in_flight_max=16, start_interval_ms=1000)
    assert drain(lanes) == []
    lanes.attempt_ended(one, NOW_MS, 1000)
    assert drain(lanes) == []
    assert lanes.next_start_at() == NOW_MS + 980
    assert drain(lanes, NOW_MS + 980) == [(2, 0)]
