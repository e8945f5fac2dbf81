"""All lanes of a process: the fair order of their deliveries, their limits, and the removal of deliveries."""

from collections import Counter

from uplift_server.core.scheduling.circuit_breaker import Breaker
from uplift_server.core.scheduling.lane import AttemptKind
from uplift_server.core.scheduling.lanes import Lanes, NoSlot

from .lanes import NOW_MS, OPEN, drain, fill, fresh_lane, lane_of

# ---- order


def test_accounts_alternate() -> None:
    lanes: Lanes[int] = Lanes(1000)
    for endpoint in range(1, 10):
        fill(lanes, lane_of(lanes, endpoint, account=1), 5)
    fill(lanes, lane_of(lanes, 99, account=2), 5)

    assert [endpoint == 99 for endpoint, _ in drain(lanes, most=10)] == [False, True] * 5


def test_every_created_lane_is_listed_until_it_is_dropped() -> None:
    lanes: Lanes[int] = Lanes(10)
    created = [lane_of(lanes, endpoint) for endpoint in (1, 2, 3)]
    lanes.drop(2)
    assert list(lanes.all()) == [created[0], created[2]]


def test_endpoints_of_an_account_alternate() -> None:
    lanes: Lanes[int] = Lanes(1000)
    for endpoint in (1, 2, 3):
        fill(lanes, lane_of(lanes, endpoint), 2)

    assert drain(lanes) == [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (3, 1)]


def test_an_account_with_a_blocked_lane_keeps_its_turn() -> None:
    lanes: Lanes[int] = Lanes(1000)
    slow, quick, other = (lane_of(lanes, endpoint, account) for endpoint, account in ((1, 1), (2, 1), (3, 2)))
    slow.breaker = OPEN
    fill(lanes, slow, 1)
    fill(lanes, quick, 2)
    fill(lanes, other, 2)

    assert [endpoint for endpoint, _ in drain(lanes)] == [2, 3, 2, 3]


# ---- limits


def test_a_lane_may_start_fewer_attempts_when_fewer_slots_are_free() -> None:
    lanes: Lanes[int] = Lanes(100)
    for endpoint in range(1, 8):
        fill(lanes, lane_of(lanes, endpoint), 100)
    assert 0 < 100 - len(drain(lanes)) < 25

    # An idle lane still gets one of the free slots.
    late = lane_of(lanes, 99)
    fill(lanes, late, 1)
    assert [endpoint for endpoint, _ in drain(lanes)] == [99]


def test_a_requested_attempt_skips_queue_rate_limit_and_breaker() -> None:
    lanes: Lanes[int] = Lanes(3)
    lane = lane_of(lanes)
    lanes.set_limits(lane, in_flight_max=2, start_interval_ms=60_000)
    fill(lanes, lane, 3)
    assert len(drain(lanes)) == 1
    lane.breaker = Breaker(failures=9, probe_at=NOW_MS + 60_000, probe_wait_ms=60_000)

    assert lanes.start_now(lane, NOW_MS) is None
    assert (lane.in_flight, lanes.in_flight) == (2, 2)
    assert lanes.start_now(lane, NOW_MS) is not None
    other = lane_of(lanes, 2)
    assert lanes.start_now(other, NOW_MS) is None
    assert lanes.start_now(other, NOW_MS) is not None


def test_a_start_beyond_the_limit_needs_a_slot_of_the_process() -> None:
    lanes: Lanes[int] = Lanes(3)
    lane = lane_of(lanes, in_flight_max=1)
    assert lanes.start_now(lane, NOW_MS) is None
    assert lanes.start_now(lane, NOW_MS) is not None
    assert lanes.start_now(lane, NOW_MS, beyond_limit=True) is None
    assert (lane.in_flight, lanes.in_flight) == (2, 2)
    # The waiting deliveries of the lane start only when it is below its limit again.
    fill(lanes, lane, 1)
    lanes.attempt_ended(lane, NOW_MS, 1000)
    assert drain(lanes) == []
    lanes.attempt_ended(lane, NOW_MS, 1000)
    assert drain(lanes) == [(1, 0)]
    other = lane_of(lanes, 2, in_flight_max=2)
    assert lanes.start_now(other, NOW_MS) is None
    assert lanes.start_now(other, NOW_MS) is None
    assert lanes.start_now(lane, NOW_MS, beyond_limit=True) is not None


def test_the_process_limit_blocks_until_an_attempt_ends() -> None:
    lanes: Lanes[int] = Lanes(2)
    lane = lane_of(lanes)
    fill(lanes, lane, 3)

    assert len(drain(lanes)) == lanes.in_flight == 2
    lanes.attempt_ended(lane, NOW_MS, 1000)
    assert drain(lanes) == [(1, 2)]


def test_a_hanging_endpoint_fills_only_its_own_lane() -> None:
    lanes: Lanes[int] = Lanes(1000)
    hangs, well = lane_of(lanes, 1, in_flight_max=2), lane_of(lanes, 2, in_flight_max=2)
    fill(lanes, hangs, 5)
    fill(lanes, well, 1)

    assert Counter(endpoint for endpoint, _ in drain(lanes)) == {1: 2, 2: 1}
    lanes.attempt_ended(well, NOW_MS, 1000)
    fill(lanes, hangs, 1)
    fill(lanes, well, 1)
    assert drain(lanes) == [(2, 0)]


def test_a_higher_limit_applies_at_once() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, in_flight_max=1)
    fill(lanes, lane, 3)
    assert len(drain(lanes)) == 1

    lanes.set_limits(lane, in_flight_max=3, start_interval_ms=0.0)

    assert len(drain(lanes)) == 2


def test_a_lower_limit_waits_for_attempts_in_flight() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, in_flight_max=3)
    fill(lanes, lane, 4)
    assert len(drain(lanes, most=2)) == 2

    lanes.set_limits(lane, in_flight_max=1, start_interval_ms=0.0)

    assert drain(lanes) == []
    lanes.attempt_ended(lane, NOW_MS, 1000)
    assert drain(lanes) == []
    lanes.attempt_ended(lane, NOW_MS, 1000)
    assert drain(lanes) == [(1, 2)]


# ---- removal


def test_a_lane_is_created_once_and_found() -> None:
    lanes: Lanes[int] = Lanes(1000)
    assert lanes.find(1) is None
    lane = lanes.lane(1, 1, "1.test")
    assert lanes.find(1) is lane is lanes.lane(1, 1, "1.test")


def test_dropping_returns_waiting_deliveries() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes)
    fill(lanes, lane, 3)
    assert lanes.pop(NOW_MS) is not None

    assert lanes.drop(1) == [1, 2]
    assert lanes.drop(1) == []
    assert lanes.find(1) is None
    assert lanes.pop(NOW_MS) is None
    lanes.attempt_ended(lane, NOW_MS, 1000)
    assert lanes.in_flight == 0


def test_a_delivery_can_be_removed_from_any_queue() -> None:
    lanes: Lanes[int] = Lanes(100)
    lane = lane_of(lanes, 1)
    for item, kind in enumerate([AttemptKind.FIRST, AttemptKind.FIRST, AttemptKind.RETRY, AttemptKind.REPLAY]):
        lanes.push(lane, item, kind)
    assert lanes.remove(lane, lambda item: item == 2) == 2
    assert lanes.remove(lane, lambda item: item == 2) is None
    assert lane.waiting_count == 3
    assert sorted(item for _, item in drain(lanes)) == [0, 1, 3]


def test_emptying_removes_all_kinds_from_all_lanes() -> None:
    lanes: Lanes[int] = Lanes(1000)
    one, two = lane_of(lanes, 1), lane_of(lanes, 2, start_interval_ms=1000)
    fill(lanes, one, 1)
    fill(lanes, one, 1, AttemptKind.REPLAY)
    fill(lanes, two, 2)
    assert lanes.pop(NOW_MS) is not None
    assert len(drain(lanes)) == 2

    assert lanes.take_waiting(one) == []
    assert lanes.take_waiting(two) == [1]
    assert drain(lanes, NOW_MS + 5000) == []
    fill(lanes, two, 1)
    assert drain(lanes, NOW_MS + 5000) == [(2, 0)]


def test_removing_one_kind_keeps_the_others() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes)
    fill(lanes, lane, 2)
    fill(lanes, lane, 3, AttemptKind.REPLAY)

    assert lanes.take_waiting(lane, (AttemptKind.REPLAY,)) == [0, 1, 2]
    assert lanes.take_waiting(lane, (AttemptKind.REPLAY,)) == []
    assert lane.waiting_count == 2
    assert len(drain(lanes)) == 2


# ---- shares of an account


def test_one_of_several_accounts_uses_at_most_half_of_the_slots() -> None:
    lanes: Lanes[int] = Lanes(10)
    alone = [lane_of(lanes, endpoint, account=1) for endpoint in (1, 2)]
    for lane in alone:
        fill(lanes, lane, 10)
    assert len(drain(lanes)) == 10
    fill(lanes, lane_of(lanes, 3, account=2), 10)

    for _ in range(5):
        lanes.attempt_ended(alone[0], NOW_MS, 1000, succeeded=True)
    assert [endpoint for endpoint, _ in drain(lanes)] == [3] * 5
    lanes.attempt_ended(alone[1], NOW_MS, 1000, succeeded=True)
    assert [endpoint for endpoint, _ in drain(lanes)] == [1]


def test_the_lanes_of_an_account_to_one_host_share_a_limit() -> None:
    lanes: Lanes[int] = Lanes(100, 4)
    one, two, three = (lane_of(lanes, endpoint, host="shared.test", in_flight_max=3) for endpoint in (1, 2, 3))
    fill(lanes, lane_of(lanes, 4), 1)
    for lane in (one, two, three):
        fill(lanes, lane, 3)
    assert Counter(endpoint for endpoint, _ in drain(lanes)) == {1: 2, 2: 1, 3: 1, 4: 1}
    other_account = lane_of(lanes, 5, account=2, host="shared.test", in_flight_max=3)
    fill(lanes, other_account, 3)
    assert [endpoint for endpoint, _ in drain(lanes)] == [5, 5, 5]
    assert lanes.start_now(three, NOW_MS) is NoSlot.ACCOUNT

    lanes.attempt_ended(one, NOW_MS, 1000)
    assert [endpoint for endpoint, _ in drain(lanes)] == [2]


def test_a_lane_that_cannot_use_a_host_slot_passes_it_on() -> None:
    lanes: Lanes[int] = Lanes(100, 2)
    one, two, three = (lane_of(lanes, endpoint, host="shared.test", in_flight_max=2) for endpoint in (1, 2, 3))
    fill(lanes, one, 2)
    assert len(drain(lanes)) == 2
    for lane in (two, three):
        fill(lanes, lane, 1)
    assert drain(lanes) == []
    lanes.take_waiting(two)

    lanes.attempt_ended(one, NOW_MS, 1000)
    assert drain(lanes) == [(3, 0)]


def test_the_limit_of_a_host_is_the_highest_limit_of_its_endpoints() -> None:
    lanes: Lanes[int] = Lanes(100, 2)
    one, two = (lane_of(lanes, endpoint, host="shared.test", in_flight_max=2) for endpoint in (1, 2))
    fill(lanes, one, 2)
    fill(lanes, two, 2)
    assert len(drain(lanes)) == 2

    lanes.set_limits(one, in_flight_max=3, start_interval_ms=0.0)
    assert len(drain(lanes)) == 1


def test_the_attempts_of_a_moved_lane_count_for_its_new_host() -> None:
    lanes: Lanes[int] = Lanes(100, 2)
    one, two = (lane_of(lanes, endpoint, host="shared.test", in_flight_max=2) for endpoint in (1, 2))
    fill(lanes, one, 3)
    fill(lanes, two, 2)
    assert [endpoint for endpoint, _ in drain(lanes)] == [1, 2]
    lanes.move_to_host(one, "shared.test")
    assert drain(lanes) == []

    lanes.move_to_host(one, "elsewhere.test")
    assert sorted(endpoint for endpoint, _ in drain(lanes)) == [1, 2]
    assert lanes.start_now(one, NOW_MS, beyond_limit=True) is NoSlot.ACCOUNT
    lanes.attempt_ended(one, NOW_MS, 1000)
    assert lanes.start_now(one, NOW_MS, beyond_limit=True) is None


def test_requested_attempts_leave_the_last_quarter_to_proven_lanes() -> None:
    lanes: Lanes[int] = Lanes(4)
    for endpoint in (1, 2, 3):
        assert lanes.start_now(fresh_lane(lanes, endpoint, endpoint), NOW_MS) is None
    assert lanes.start_now(fresh_lane(lanes, 4, 4), NOW_MS) is NoSlot.SERVER
    assert lanes.start_now(lane_of(lanes, 5, 5), NOW_MS) is None


def test_a_proven_lane_whose_test_is_overdue_counts_as_unproven() -> None:
    lanes: Lanes[int] = Lanes(100)
    lane = lane_of(lanes)
    assert lanes.start_now(lane, NOW_MS) is None
    assert lanes.start_now(lane, NOW_MS + 1000) is None
    assert not lane.proven


def test_the_last_slots_are_for_tests_of_lanes_with_less_in_flight() -> None:
    lanes: Lanes[int] = Lanes(100)
    busy = lane_of(lanes, 1)
    fill(lanes, busy, 100)
    drain(lanes)
    assert lanes.in_flight < 100
    assert lanes.start_now(busy, NOW_MS) is NoSlot.SERVER
    assert lanes.start_now(lane_of(lanes, 2), NOW_MS) is None
