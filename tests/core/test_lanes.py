"""Who goes next: turns, caps, pacing and probes, also in any order of everything that can happen to lanes."""

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from uplift_server.core.breaker import Breaker, BreakerRule
from uplift_server.core.lane import STALLED_MEANS, WINDOW_START, Kind, Lane
from uplift_server.core.lanes import Lanes
from uplift_server.core.pace import PACE_CREDIT_MS, gap_ms

NOW_MS = 1_764_000_000_000
OPEN = Breaker(failures=10, probe_at=NOW_MS + 1000, probe_wait_ms=1000)


def lane_of(
    lanes: Lanes[int], endpoint: int = 1, account: int = 1, *, in_flight_max: int = 1000, rate_gap_ms: float = 0.0
) -> Lane[int]:
    """A lane with limits, whose receiver has proved itself."""
    lane = lanes.lane(endpoint, account)
    lane.proven, lane.window, lane.last_return_ms = True, 1_000_000, NOW_MS
    lanes.limit(lane, in_flight_max=in_flight_max, rate_gap_ms=rate_gap_ms)
    return lane


def fill(lanes: Lanes[int], lane: Lane[int], items: int, kind: Kind = Kind.FIRST) -> None:
    """Let so many deliveries wait."""
    for item in range(items):
        lanes.push(lane, item, kind)


def drain(lanes: Lanes[int], now_ms: int = NOW_MS, most: int = 1000) -> list[tuple[int, int]]:
    """Endpoint and item of everything that may start now, in order."""
    popped = []
    while len(popped) < most and (found := lanes.pop(now_ms)) is not None:
        popped.append((found[0].endpoint, found[1]))
    return popped


def answering(lanes: Lanes[int], lane: Lane[int], now_ms: int) -> int:
    """Start what may start now, and let each be answered at once; how many."""
    started = 0
    while (found := lanes.pop(now_ms)) is not None:
        lanes.returned(found[0], now_ms, 1000, well=True)
        started += found[0] is lane
    return started


# ---- turns


def test_accounts_take_turns_however_many_endpoints_they_have() -> None:
    lanes: Lanes[int] = Lanes(1000)
    for endpoint in range(1, 10):
        fill(lanes, lane_of(lanes, endpoint, account=1), 5)
    fill(lanes, lane_of(lanes, 99, account=2), 5)

    assert [endpoint == 99 for endpoint, _ in drain(lanes, most=10)] == [False, True] * 5


def test_endpoints_of_an_account_take_turns() -> None:
    lanes: Lanes[int] = Lanes(1000)
    for endpoint in (1, 2, 3):
        fill(lanes, lane_of(lanes, endpoint), 2)

    assert drain(lanes) == [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (3, 1)]


def test_an_endpoint_that_may_not_start_does_not_cost_its_account_the_turn() -> None:
    lanes: Lanes[int] = Lanes(1000)
    slow, quick, other = (lane_of(lanes, endpoint, account) for endpoint, account in ((1, 1), (2, 1), (3, 2)))
    slow.breaker = OPEN
    fill(lanes, slow, 1)
    fill(lanes, quick, 2)
    fill(lanes, other, 2)

    assert [endpoint for endpoint, _ in drain(lanes)] == [2, 3, 2, 3]


# ---- caps


def test_the_fewer_slots_are_free_the_fewer_a_lane_may_add() -> None:
    lanes: Lanes[int] = Lanes(100)
    for endpoint in range(1, 8):
        fill(lanes, lane_of(lanes, endpoint), 100)
    assert 0 < 100 - len(drain(lanes)) < 25

    # Whoever has nothing in flight still gets one of the slots that are left.
    late = lane_of(lanes, 99)
    fill(lanes, late, 1)
    assert [endpoint for endpoint, _ in drain(lanes)] == [99]


def test_an_attempt_a_person_asked_for_waits_for_no_turn_pace_or_breaker() -> None:
    lanes: Lanes[int] = Lanes(3)
    lane = lane_of(lanes)
    lanes.limit(lane, in_flight_max=2, rate_gap_ms=60_000)
    fill(lanes, lane, 3)
    assert len(drain(lanes)) == 1
    lane.breaker = Breaker(failures=9, probe_at=NOW_MS + 60_000, probe_wait_ms=60_000)

    assert lanes.start_now(lane, NOW_MS)
    assert (lane.in_flight, lanes.in_flight) == (2, 2)
    assert not lanes.start_now(lane, NOW_MS)
    other = lane_of(lanes, 2)
    assert lanes.start_now(other, NOW_MS)
    assert not lanes.start_now(other, NOW_MS)


def test_a_start_besides_what_a_lane_may_needs_only_a_slot_of_the_process() -> None:
    lanes: Lanes[int] = Lanes(3)
    lane = lane_of(lanes, in_flight_max=1)
    assert lanes.start_now(lane, NOW_MS)
    assert not lanes.start_now(lane, NOW_MS)
    assert lanes.start_now(lane, NOW_MS, besides=True)
    assert (lane.in_flight, lanes.in_flight) == (2, 2)
    # The lane's own work waits until it is below its cap again.
    fill(lanes, lane, 1)
    lanes.returned(lane, NOW_MS, 1000)
    assert drain(lanes) == []
    lanes.returned(lane, NOW_MS, 1000)
    assert drain(lanes) == [(1, 0)]
    other = lane_of(lanes, 2, in_flight_max=2)
    assert lanes.start_now(other, NOW_MS)
    assert lanes.start_now(other, NOW_MS)
    assert not lanes.start_now(lane, NOW_MS, besides=True)


def test_the_processs_cap_stops_everything_until_something_returns() -> None:
    lanes: Lanes[int] = Lanes(2)
    lane = lane_of(lanes)
    fill(lanes, lane, 3)

    assert len(drain(lanes)) == lanes.in_flight == 2
    lanes.returned(lane, NOW_MS, 1000)
    assert drain(lanes) == [(1, 2)]


def test_an_endpoint_that_hangs_fills_only_its_own_lane() -> None:
    lanes: Lanes[int] = Lanes(1000)
    hangs, well = lane_of(lanes, 1, in_flight_max=2), lane_of(lanes, 2, in_flight_max=2)
    fill(lanes, hangs, 5)
    fill(lanes, well, 1)

    assert Counter(endpoint for endpoint, _ in drain(lanes)) == {1: 2, 2: 1}
    lanes.returned(well, NOW_MS, 1000)
    fill(lanes, hangs, 1)
    fill(lanes, well, 1)
    assert drain(lanes) == [(2, 0)]


def test_a_higher_cap_holds_at_once() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, in_flight_max=1)
    fill(lanes, lane, 3)
    assert len(drain(lanes)) == 1

    lanes.limit(lane, in_flight_max=3, rate_gap_ms=0.0)

    assert len(drain(lanes)) == 2


def test_a_lower_cap_waits_for_what_is_in_flight() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, in_flight_max=3)
    fill(lanes, lane, 4)
    assert len(drain(lanes, most=2)) == 2

    lanes.limit(lane, in_flight_max=1, rate_gap_ms=0.0)

    assert drain(lanes) == []
    lanes.returned(lane, NOW_MS, 1000)
    assert drain(lanes) == []
    lanes.returned(lane, NOW_MS, 1000)
    assert drain(lanes) == [(1, 2)]


# ---- receivers that have not proved themselves, or no longer do


def fresh_lane(lanes: Lanes[int], endpoint: int, account: int = 1, *, items: int = 10) -> Lane[int]:
    """The lane of an endpoint that never answered yet, with work."""
    lane = lanes.lane(endpoint, account)
    lanes.limit(lane, in_flight_max=16, rate_gap_ms=0.0)
    fill(lanes, lane, items)
    return lane


def test_the_window_opens_with_every_success_and_shuts_at_a_time_out() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = fresh_lane(lanes, 1, items=100)
    assert len(drain(lanes)) == WINDOW_START

    for more in range(1, 30):
        lanes.returned(lane, NOW_MS, 1000, well=True)
        assert len(drain(lanes)) == (2 if more <= 16 - WINDOW_START else 1)
    assert lane.in_flight == lane.window == lane.in_flight_max

    lanes.returned(lane, NOW_MS, 15_000_000, well=False)
    assert lane.window == 1
    for _ in range(14):
        lanes.returned(lane, NOW_MS, 1000)
        assert drain(lanes) == []
    lanes.returned(lane, NOW_MS, 1000)
    assert len(drain(lanes)) == 1


def test_other_failures_leave_the_window_as_it_is() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = fresh_lane(lanes, 1)
    assert len(drain(lanes)) == WINDOW_START
    lanes.returned(lane, NOW_MS, 1000)
    assert (lane.window, lane.proven, lane.mean_us) == (WINDOW_START, False, 0)


def test_a_receiver_that_begins_to_hang_is_sent_little_more() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes)
    lane.mean_us = 50_000
    fill(lanes, lane, 100)
    later = NOW_MS + 50 * STALLED_MEANS + 1

    assert len(drain(lanes, later, most=100)) == WINDOW_START
    lanes.returned(lane, later, 1000, well=True)
    assert len(drain(lanes, later)) == 100 - WINDOW_START


def test_unproven_receivers_leave_slots_to_the_others() -> None:
    lanes: Lanes[int] = Lanes(8)
    for endpoint in range(1, 6):
        fresh_lane(lanes, endpoint)
    assert len(drain(lanes)) == 6

    fill(lanes, lane_of(lanes, 9), 5)
    assert drain(lanes) == [(9, 0), (9, 1)]


def test_a_parked_endpoint_goes_out_before_the_one_whose_slot_it_takes() -> None:
    lanes: Lanes[int] = Lanes(4)
    one = fresh_lane(lanes, 1, items=3)
    assert len(drain(lanes)) == 3
    two, three = fresh_lane(lanes, 2), fresh_lane(lanes, 3)
    fill(lanes, one, 5)
    assert drain(lanes) == []
    assert two.parked
    assert three.parked

    for _ in range(2):
        lanes.returned(one, NOW_MS, 1000)
    assert drain(lanes) == [(2, 0), (3, 0)]


def test_when_many_slots_become_free_many_parked_endpoints_go_out() -> None:
    lanes: Lanes[int] = Lanes(4)
    one = fresh_lane(lanes, 1, items=3)
    assert len(drain(lanes)) == 3
    for endpoint in (2, 3, 4, 5):
        fresh_lane(lanes, endpoint, items=1)
    assert drain(lanes) == []

    # Its other two in flight no longer count as unproven.
    lanes.returned(one, NOW_MS, 1000, well=True)

    assert drain(lanes) == [(2, 0), (3, 0)]
    lanes.returned(one, NOW_MS, 1000, well=True)
    assert drain(lanes) == [(4, 0)]


def test_a_parked_endpoint_that_proves_itself_waits_no_longer() -> None:
    lanes: Lanes[int] = Lanes(8)
    good = fresh_lane(lanes, 1, items=1)
    assert len(drain(lanes)) == 1
    for endpoint in (2, 3):
        fresh_lane(lanes, endpoint)
    assert len(drain(lanes)) == 5
    fill(lanes, good, 2)
    assert drain(lanes) == []
    assert good.parked
    # What it leaves goes to another unproven one.
    lanes.returned(good, NOW_MS, 1000, well=True)

    assert Counter(endpoint for endpoint, _ in drain(lanes)) == {1: 2, 3: 1}


def test_the_place_it_leaves_among_the_parked_ones_takes_nobodys_slot() -> None:
    lanes: Lanes[int] = Lanes(4)
    good = fresh_lane(lanes, 1, items=1)
    fresh_lane(lanes, 2, items=2)
    assert len(drain(lanes)) == 3
    fill(lanes, good, 1)
    assert drain(lanes) == []
    fresh_lane(lanes, 3, items=1)
    assert drain(lanes) == []

    lanes.returned(good, NOW_MS, 1000, well=True)

    assert drain(lanes) == [(1, 0), (3, 0)]


def test_parked_endpoints_go_on_although_one_of_them_has_gone() -> None:
    lanes: Lanes[int] = Lanes(4)
    one = fresh_lane(lanes, 1, items=3)
    assert len(drain(lanes)) == 3
    for endpoint in (2, 3):
        fresh_lane(lanes, endpoint, items=1)
    assert drain(lanes) == []
    lanes.drop(2)

    # The slot is offered to the one that is gone; nothing else will come back to offer it again.
    lanes.returned(one, NOW_MS, 1000)

    assert drain(lanes) == [(3, 0)]


# ---- pacing


def test_a_rate_limit_spaces_starts() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, rate_gap_ms=100)
    fill(lanes, lane, 5)

    starts = [now for now in range(NOW_MS, NOW_MS + 1000) for _ in range(answering(lanes, lane, now))]
    assert [later - earlier for earlier, later in pairwise(starts)] == [80, 100, 100, 100]


def test_a_timer_that_fires_late_does_not_lower_a_high_rate() -> None:
    lanes: Lanes[int] = Lanes(100_000)
    lane = lane_of(lanes, rate_gap_ms=2, in_flight_max=100_000)
    fill(lanes, lane, 1000)

    assert sum(answering(lanes, lane, now) for now in range(NOW_MS, NOW_MS + 1000, 10)) >= 500


@pytest.mark.parametrize("rate", [1, 2, 7, 10, 50, 333, 1000, 5000])
@pytest.mark.parametrize("every_ms", [1, 3, 15, 20, 45])
def test_no_second_sees_more_than_the_limit_and_most_of_it_is_reached(rate: int, every_ms: int) -> None:
    """However late the timers fire: idle at first, then with work for long."""
    lanes: Lanes[int] = Lanes(100_000)
    lane = lane_of(lanes, rate_gap_ms=gap_ms(rate), in_flight_max=100_000)
    fill(lanes, lane, 4 * rate)
    starts = [now for now in range(NOW_MS, NOW_MS + 3000, every_ms) for _ in range(answering(lanes, lane, now))]

    assert all(later - earlier >= 1000 for earlier, later in zip(starts, starts[rate:], strict=False))
    if every_ms <= PACE_CREDIT_MS:
        assert len(starts) >= int(rate * 3 * 0.98) - 1


def test_a_changed_rate_counts_from_the_last_start() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, rate_gap_ms=1000)
    fill(lanes, lane, 10)
    assert len(drain(lanes)) == 1
    for gap, at in ((100, 80), (5000, 4980), (20, 0)):
        lanes.limit(lane, in_flight_max=1000, rate_gap_ms=gap)
        assert lane.start_at() == NOW_MS + at
    lanes.limit(lane, in_flight_max=1000, rate_gap_ms=0.0)
    assert len(drain(lanes)) == 9


def test_a_paced_lane_lends_a_person_one_start_at_a_time() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, rate_gap_ms=1000)
    assert lanes.start_now(lane, NOW_MS)
    assert lanes.start_now(lane, NOW_MS)
    assert not lanes.start_now(lane, NOW_MS)
    assert not lanes.start_now(lane, NOW_MS + 979)
    assert lanes.start_now(lane, NOW_MS + 980)
    # What was lent is missing from what the lane itself may send.
    fill(lanes, lane, 1)
    assert drain(lanes, NOW_MS + 2979) == []
    assert len(drain(lanes, NOW_MS + 2980)) == 1


def test_the_next_start_of_a_paced_lane_is_known() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, rate_gap_ms=100)
    fill(lanes, lane, 2)
    assert lanes.wake_at() is None

    assert len(drain(lanes)) == 1

    assert lanes.wake_at() == lane.start_at() == NOW_MS + 80


def test_an_attempt_that_never_began_costs_nothing_of_the_rate() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, rate_gap_ms=1000)
    fill(lanes, lane, 10)
    for _ in range(9):
        assert lanes.pop(NOW_MS) is not None
        lanes.returned(lane, NOW_MS + 1, 0)

    assert len(drain(lanes)) == 1
    assert (lane.mean_us, lane.last_return_ms) == (0, NOW_MS)


# ---- the breaker


def test_an_open_breaker_lets_one_probe_through_when_it_is_time() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes)
    lane.breaker = OPEN
    fill(lanes, lane, 3)

    assert drain(lanes, NOW_MS + 999) == []
    assert lanes.wake_at() == NOW_MS + 1000
    assert len(drain(lanes, NOW_MS + 1000)) == 1
    lane.breaker = Breaker(11, None, NOW_MS + 3000, 2000)
    lanes.returned(lane, NOW_MS + 1001, 1000)
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
    lanes.returned(lane, NOW_MS, 1000)
    lanes.returned(lane, NOW_MS, 1000)
    assert drain(lanes, NOW_MS + 1) == []
    assert lanes.wake_at() == NOW_MS + 1000

    lane.breaker = lane.breaker.succeeded(NOW_MS)
    lanes.limit(lane, in_flight_max=1000, rate_gap_ms=0.0)

    assert lanes.wake_at() is None
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
        lanes.returned(lane, NOW_MS, 1000)
    assert drain(lanes) == []
    assert lanes.empty_all() == [0]
    lane.breaker = lane.breaker.succeeded(NOW_MS)

    fill(lanes, lane, 1)
    assert drain(lanes) == [(1, 0)]


def test_an_entry_made_void_is_passed_over_when_its_instant_comes() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes, rate_gap_ms=1000)
    fill(lanes, lane, 5)
    assert len(drain(lanes)) == 1
    lane.next_start_ms = NOW_MS + 10.0
    lanes.limit(lane, in_flight_max=1000, rate_gap_ms=0.0)
    fill(lanes, lane_of(lanes, 2), 4)

    for each in (1, 2):
        lanes.lane(each, 1).last_return_ms = NOW_MS + 2000
    # Standing in the queue twice, it would be served twice as often.
    assert [endpoint for endpoint, _ in drain(lanes, NOW_MS + 2000)] == [1, 2] * 4


# ---- taking out


def test_a_lane_is_made_once_and_found() -> None:
    lanes: Lanes[int] = Lanes(1000)
    assert lanes.find(1) is None
    lane = lanes.lane(1, 1)
    assert lanes.find(1) is lane is lanes.lane(1, 1)


def test_dropping_gives_back_what_waited() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes)
    fill(lanes, lane, 3)
    assert lanes.pop(NOW_MS) is not None

    assert lanes.drop(1) == [1, 2]
    assert lanes.drop(1) == []
    assert lanes.find(1) is None
    assert lanes.pop(NOW_MS) is None
    lanes.returned(lane, NOW_MS, 1000)
    assert lanes.in_flight == 0


def test_one_delivery_can_be_taken_out_of_any_queue() -> None:
    lanes: Lanes[int] = Lanes(100)
    lane = lane_of(lanes, 1)
    for item, kind in enumerate([Kind.FIRST, Kind.FIRST, Kind.RETRY, Kind.REPLAY]):
        lanes.push(lane, item, kind)
    assert lanes.withdraw(lane, lambda item: item == 2) == 2
    assert lanes.withdraw(lane, lambda item: item == 2) is None
    assert lane.waiting_count == 3
    assert sorted(item for _, item in drain(lanes)) == [0, 1, 3]


def test_emptying_takes_all_kinds_of_all_lanes() -> None:
    lanes: Lanes[int] = Lanes(1000)
    one, two = lane_of(lanes, 1), lane_of(lanes, 2, rate_gap_ms=1000)
    fill(lanes, one, 1)
    fill(lanes, one, 1, Kind.REPLAY)
    fill(lanes, two, 2)
    assert lanes.pop(NOW_MS) is not None
    assert len(drain(lanes)) == 2

    assert lanes.empty_all() == [1]
    assert drain(lanes, NOW_MS + 5000) == []
    fill(lanes, two, 1)
    assert drain(lanes, NOW_MS + 5000) == [(2, 0)]


def test_one_kind_is_taken_out_and_the_others_stay() -> None:
    lanes: Lanes[int] = Lanes(1000)
    lane = lane_of(lanes)
    fill(lanes, lane, 2)
    fill(lanes, lane, 3, Kind.REPLAY)

    assert lanes.empty(lane, (Kind.REPLAY,)) == [0, 1, 2]
    assert lanes.empty(lane, (Kind.REPLAY,)) == []
    assert lane.waiting_count == 2
    assert len(drain(lanes)) == 2


# ---- everything in any order

ENDPOINTS = {1: (1, 0.0), 2: (1, 40.0), 3: (1, 3.0), 4: (2, 0.0), 5: (2, 1000.0)}
"""Endpoint → account, and the least time between two starts at first."""
RULE = BreakerRule(failures=2, probe_max_ms=8000)
IN_FLIGHT_MAX = 8
UNPROVEN_MAX = 6


class LanesMachine(RuleBasedStateMachine):
    """Lanes beside a model that only remembers what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[int] = Lanes(IN_FLIGHT_MAX)
        self.now = NOW_MS
        self.numbers = count()
        self.kinds: dict[int, Kind] = {}
        self.waiting: dict[Lane[int], dict[Kind, list[int]]] = defaultdict(lambda: {kind: [] for kind in Kind})
        self.in_flight: list[tuple[Lane[int], int]] = []
        self.starts: dict[Lane[int], list[tuple[int, int]]] = defaultdict(list)
        """When each item began, under the lane's present limits."""
        self.passed_over: dict[object, set[object]] = defaultdict(set)
        """Who was served while somebody else was ready and was not."""

    def lane(self, endpoint: int) -> Lane[int]:
        lane = self.lanes.find(endpoint)
        if lane is None:
            account, gap = ENDPOINTS[endpoint]
            lane = self.lanes.lane(endpoint, account)
            lane.proven = endpoint % 2 == 0
            self.lanes.limit(lane, in_flight_max=6, rate_gap_ms=gap)
            self.waiting[lane]
        return lane

    def flying(self, lane: Lane[int]) -> int:
        return sum(each is lane for each, _ in self.in_flight)

    def may_start(self, lane: Lane[int]) -> bool:
        """Whether a lane has work and a free slot, and is not waiting for an answer."""
        slots = 1 if lane.breaker.probe_at is not None else min(lane.window, lane.in_flight_max)
        return any(self.waiting[lane].values()) and self.flying(lane) < slots and not lane.stalled(self.now)

    def in_good_standing(self, lane: Lane[int]) -> bool:
        """Whether a lane is proven and stays so when it is looked at now."""
        return lane.proven and not lane.overdue(self.now)

    def ready(self) -> set[Lane[int]]:
        """Lanes that must get a slot if one is free, whichever lanes are found overdue before it is their turn."""
        unproven = sum(not self.in_good_standing(lane) for lane, _ in self.in_flight)
        return self.could_start(lambda lane: self.in_good_standing(lane) or unproven < UNPROVEN_MAX)

    def could_start(self, allowed: Callable[[Lane[int]], bool]) -> set[Lane[int]]:
        return {lane for lane in self.waiting if self.may_start(lane) and lane.start_at() <= self.now and allowed(lane)}

    def unproven_in_flight(self) -> int:
        return sum(not lane.proven for lane, _ in self.in_flight)

    @rule(endpoint=st.sampled_from(sorted(ENDPOINTS)), kind=st.sampled_from(Kind), items=st.integers(1, 4))
    def push(self, endpoint: int, kind: Kind, items: int) -> None:
        lane = self.lane(endpoint)
        for _ in range(items):
            item = next(self.numbers)
            self.kinds[item] = kind
            self.waiting[lane][kind].append(item)
            self.lanes.push(lane, item, kind)

    @rule(times=st.integers(1, 8))
    def pop(self, times: int) -> None:
        for _ in range(times):
            self.pop_one()

    def pop_one(self) -> None:
        ready = self.ready()
        unproven = self.unproven_in_flight()
        possible = self.could_start(lambda lane: lane.proven or unproven < UNPROVEN_MAX)
        found = self.lanes.pop(self.now)
        if found is None:
            assert not ready or len(self.in_flight) >= IN_FLIGHT_MAX
            if len(self.in_flight) < IN_FLIGHT_MAX:
                self.check_wake()
            return
        lane, item = found
        assert lane in possible
        assert len(self.in_flight) < IN_FLIGHT_MAX
        assert lane.proven or self.unproven_in_flight() < UNPROVEN_MAX
        if lane.breaker.probe_at is not None:
            assert self.flying(lane) == 0
            assert self.now >= lane.breaker.probe_at
        assert self.waiting[lane][self.kinds[item]].pop(0) == item
        self.in_flight.append((lane, item))
        self.starts[lane].append((self.now, item))
        self.check_rate(lane)
        self.check_turns(lane, ready)

    def check_wake(self) -> None:
        """Nobody who waits for an instant is forgotten."""
        wake_at = self.lanes.wake_at()
        for lane in self.waiting:
            if self.may_start(lane) and lane.start_at() > self.now:
                assert wake_at is not None
                assert self.now < wake_at <= lane.start_at()

    def check_rate(self, lane: Lane[int]) -> None:
        gap = lane.rate_gap_ms
        starts = self.starts[lane]
        for back, (earlier, _) in enumerate(reversed(starts[:-1]), 1):
            assert self.now - earlier >= back * gap - PACE_CREDIT_MS - 0.01

    def check_turns(self, served: Lane[int], ready: set[Lane[int]]) -> None:
        """Nobody is served twice while somebody who could be served waits; accounts first, then their lanes.

        Those who have yet to prove themselves also wait for each other's slots.
        """
        proven = [lane for lane in ready if self.in_good_standing(lane)]
        accounts: set[object] = {lane.account for lane in proven}
        siblings: set[object] = {lane for lane in proven if lane.account == served.account}
        for winner, waiting in ((served.account, accounts), (served, siblings)):
            for other in waiting - {winner}:
                assert winner not in self.passed_over[other]
                self.passed_over[other].add(winner)
            self.passed_over[winner].clear()

    @invariant()
    def forget_those_that_are_not_ready(self) -> None:
        """Who could not be served meanwhile has not been passed over."""
        ready = [lane for lane in self.ready() if self.in_good_standing(lane)]
        alive: set[object] = {*ready, *(lane.account for lane in ready)}
        for other in list(self.passed_over):
            if other not in alive:
                del self.passed_over[other]

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), how=st.sampled_from(["delivered", "failed", "failed", "timed out", "never began"]))
    def returned(self, data: st.DataObject, how: str) -> None:
        lane, item = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        began = how != "never began" or (self.now, item) not in self.starts[lane][-1:]
        if how == "delivered":
            lane.breaker = lane.breaker.succeeded(NOW_MS)
        elif how in ("failed", "timed out"):
            lane.breaker = lane.breaker.failed(self.now, timed_out=how == "timed out", rule=RULE)
        well = {"delivered": True, "timed out": False}.get(how)
        self.lanes.returned(lane, self.now, 2000 if began else 0, well=well)
        if not began:
            self.starts[lane].pop()

    @rule(ms=st.sampled_from([1, 3, 20, 40, 95, 1000, 9000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    @rule(endpoint=st.sampled_from(sorted(ENDPOINTS)), cap=st.integers(1, 6))
    def change_cap(self, endpoint: int, cap: int) -> None:
        lane = self.lane(endpoint)
        self.lanes.limit(lane, in_flight_max=cap, rate_gap_ms=lane.rate_gap_ms)

    @rule(endpoint=st.sampled_from(sorted(ENDPOINTS)), gap=st.sampled_from([0.0, 3.0, 40.0, 1000.0]))
    def change_rate(self, endpoint: int, gap: float) -> None:
        lane = self.lane(endpoint)
        self.lanes.limit(lane, in_flight_max=lane.in_flight_max, rate_gap_ms=gap)
        self.starts[lane].clear()

    @rule(endpoint=st.sampled_from(sorted(ENDPOINTS)))
    def drop(self, endpoint: int) -> None:
        lane = self.lanes.find(endpoint)
        taken = self.lanes.drop(endpoint)
        if lane is None:
            assert taken == []
            return
        assert taken == [item for items in self.waiting.pop(lane).values() for item in items]
        self.passed_over.pop(lane, None)

    @rule()
    def empty_all(self) -> None:
        taken = self.lanes.empty_all()
        assert sorted(taken) == sorted(
            item for kinds in self.waiting.values() for each in kinds.values() for item in each
        )
        for kinds in self.waiting.values():
            for each in kinds.values():
                each.clear()

    @invariant()
    def counts_agree(self) -> None:
        assert self.lanes.in_flight == len(self.in_flight) <= IN_FLIGHT_MAX
        for lane, kinds in self.waiting.items():
            assert lane.waiting_count == sum(map(len, kinds.values()))
            assert lane.in_flight == self.flying(lane)
            if lane.breaker.probe_at is not None:
                assert lane.room(self.now) <= 1

    def teardown(self) -> None:
        """In the end everything that was pushed and not taken out goes out, once."""
        for _ in range(10_000):
            while self.in_flight:
                lane, _ = self.in_flight.pop()
                lane.breaker = lane.breaker.succeeded(NOW_MS)
                self.lanes.returned(lane, self.now, 1000, well=True)
            if not any(any(kinds.values()) for kinds in self.waiting.values()):
                return
            self.now += 1000
            self.pop_one()
        raise AssertionError("something waits for ever")


TestLanesInAnyOrder = LanesMachine.TestCase
TestLanesInAnyOrder.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


@given(
    lanes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 12)), min_size=1, max_size=8),
    in_flight_max=st.integers(1, 4),
)
def test_whatever_waits_where_every_account_gets_its_share(lanes: list[tuple[int, int]], in_flight_max: int) -> None:
    """At the process's cap, with each attempt over before the next begins, accounts with work differ by one at most."""
    all_lanes: Lanes[int] = Lanes(in_flight_max)
    work: Counter[int] = Counter()
    for endpoint, (account, items) in enumerate(lanes):
        fill(all_lanes, lane_of(all_lanes, endpoint, account), items)
        work[account] += items
    served: Counter[int] = Counter()
    while (found := all_lanes.pop(NOW_MS)) is not None:
        lane, _ = found
        served[lane.account] += 1
        with_work = [account for account in work if served[account] < work[account]]
        assert max((served[a] for a in with_work), default=0) - min((served[a] for a in with_work), default=0) <= 1
        all_lanes.returned(lane, NOW_MS, 1000)
    assert served == work
