"""One lane: whose turn it is among its kinds, and how much it holds."""

from collections import Counter

import pytest

from uplift_server.core.limits import LANE_WAITING_MAX
from uplift_server.core.scheduling.circuit_breaker import Breaker
from uplift_server.core.scheduling.lane import HORIZON_MS, STALLED_MS_MIN, WINDOW_START, Kind, Lane

NOW_MS = 1_764_000_000_000


def lane_with(waiting: dict[Kind, int]) -> Lane[tuple[Kind, int]]:
    """A lane in which so many of each kind wait, numbered as they came."""
    lane: Lane[tuple[Kind, int]] = Lane(1, 1)
    for kind, items in waiting.items():
        lane.waiting[kind].extend((kind, item) for item in range(items))
        lane.waiting_count += items
    return lane


# ---- turns


@pytest.mark.parametrize(
    ("kinds", "turns"),
    [
        ({Kind.FIRST, Kind.RETRY, Kind.REPLAY}, {Kind.FIRST: 3, Kind.RETRY: 2, Kind.REPLAY: 1}),
        ({Kind.FIRST, Kind.RETRY}, {Kind.FIRST: 3, Kind.RETRY: 2}),
        ({Kind.FIRST, Kind.REPLAY}, {Kind.FIRST: 3, Kind.REPLAY: 1}),
        ({Kind.RETRY, Kind.REPLAY}, {Kind.RETRY: 2, Kind.REPLAY: 1}),
        ({Kind.REPLAY}, {Kind.REPLAY: 1}),
    ],
)
def test_kinds_take_turns_as_far_as_each_has_work(kinds: set[Kind], turns: dict[Kind, int]) -> None:
    lane = lane_with(dict.fromkeys(kinds, 60))
    cycle = sum(turns.values())
    order = [lane.pop()[0] for _ in range(6 * cycle)]

    for start in range(0, 6 * cycle, cycle):
        assert Counter(order[start : start + cycle]) == turns


def test_a_kind_goes_out_in_the_order_it_came() -> None:
    lane = lane_with({Kind.FIRST: 20, Kind.REPLAY: 20})
    order = [lane.pop() for _ in range(40)]

    for kind in (Kind.FIRST, Kind.REPLAY):
        assert [item for of, item in order if of is kind] == list(range(20))
    assert lane.waiting_count == 0


# ---- room


def test_a_lane_that_answers_well_holds_what_goes_out_within_the_horizon() -> None:
    lane: Lane[int] = Lane(1, 1)
    lane.in_flight_max = 2
    assert lane.room(NOW_MS) == LANE_WAITING_MAX
    lane.mean_us = 100_000
    assert lane.room(NOW_MS) == 2 * HORIZON_MS // 100
    lane.reserved, lane.waiting_count = 10, 20
    assert lane.room(NOW_MS) == 2 * HORIZON_MS // 100 - 30


def test_a_slow_lane_holds_as_much_as_it_may_have_in_flight() -> None:
    lane: Lane[int] = Lane(1, 1)
    lane.in_flight_max = 16
    lane.mean_us = 15_000_000
    assert lane.room(NOW_MS) == 16


@pytest.mark.parametrize("failures", [0, 1])
def test_a_rate_limited_lane_holds_no_more_than_its_rate_lets_out(failures: int) -> None:
    """What waited longer than its lease would be given back unsent, again and again."""
    lane: Lane[int] = Lane(1, 1)
    lane.in_flight_max = 256
    lane.breaker = Breaker(failures)
    lane.rate_gap_ms = 1000
    assert lane.room(NOW_MS) == HORIZON_MS // 1000
    lane.rate_gap_ms = 2 * HORIZON_MS
    assert lane.room(NOW_MS) == 1


def test_a_failing_or_stalled_lane_holds_little() -> None:
    lane: Lane[int] = Lane(1, 1)
    lane.in_flight_max = 4
    lane.breaker = Breaker(1)
    assert lane.room(NOW_MS) == 4
    lane.breaker = Breaker()
    lane.in_flight, lane.last_return_ms = WINDOW_START, NOW_MS - STALLED_MS_MIN
    assert lane.room(NOW_MS) == LANE_WAITING_MAX
    assert lane.room(NOW_MS + 1) == 4


def test_a_lane_with_an_open_breaker_holds_its_probe_only() -> None:
    lane: Lane[int] = Lane(1, 1)
    lane.in_flight_max = 4
    lane.breaker = Breaker(failures=10, probe_at=NOW_MS + 1000, probe_wait_ms=1000)
    assert lane.room(NOW_MS) == 1
    lane.in_flight = 1
    assert lane.room(NOW_MS) == 0
    lane.waiting_count = 7
    assert lane.room(NOW_MS) == 0
