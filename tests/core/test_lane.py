"""One lane: it alternates between kinds of attempts, and holds a limited number of deliveries."""

from collections import Counter

import pytest

from uplift_server.core.limits import LANE_WAITING_MAX
from uplift_server.core.scheduling.circuit_breaker import Breaker
from uplift_server.core.scheduling.lane import LOOKAHEAD_MS, STALLED_MS_MIN, WINDOW_START, AttemptKind, Lane

NOW_MS = 1_764_000_000_000


def lane_with(waiting: dict[AttemptKind, int]) -> Lane[tuple[AttemptKind, int]]:
    """Return a lane with waiting items of each kind, numbered in order."""
    lane: Lane[tuple[AttemptKind, int]] = Lane(1, 1)
    for kind, items in waiting.items():
        lane.waiting[kind].extend((kind, item) for item in range(items))
        lane.waiting_count += items
    return lane


# ---- order


@pytest.mark.parametrize(
    ("kinds", "turns"),
    [
        (
            {AttemptKind.FIRST, AttemptKind.RETRY, AttemptKind.REPLAY},
            {AttemptKind.FIRST: 3, AttemptKind.RETRY: 2, AttemptKind.REPLAY: 1},
        ),
        ({AttemptKind.FIRST, AttemptKind.RETRY}, {AttemptKind.FIRST: 3, AttemptKind.RETRY: 2}),
        ({AttemptKind.FIRST, AttemptKind.REPLAY}, {AttemptKind.FIRST: 3, AttemptKind.REPLAY: 1}),
        ({AttemptKind.RETRY, AttemptKind.REPLAY}, {AttemptKind.RETRY: 2, AttemptKind.REPLAY: 1}),
        ({AttemptKind.REPLAY}, {AttemptKind.REPLAY: 1}),
    ],
)
def test_waiting_kinds_alternate(kinds: set[AttemptKind], turns: dict[AttemptKind, int]) -> None:
    lane = lane_with(dict.fromkeys(kinds, 60))
    cycle = sum(turns.values())
    order = [lane.pop()[0] for _ in range(6 * cycle)]

    for start in range(0, 6 * cycle, cycle):
        assert Counter(order[start : start + cycle]) == turns


def test_each_kind_keeps_its_order() -> None:
    lane = lane_with({AttemptKind.FIRST: 20, AttemptKind.REPLAY: 20})
    order = [lane.pop() for _ in range(40)]

    for kind in (AttemptKind.FIRST, AttemptKind.REPLAY):
        assert [item for of, item in order if of is kind] == list(range(20))
    assert lane.waiting_count == 0


# ---- capacity


def test_a_healthy_lane_holds_the_deliveries_of_the_lookahead() -> None:
    lane: Lane[int] = Lane(1, 1)
    lane.in_flight_max = 2
    assert lane.free_capacity(NOW_MS) == LANE_WAITING_MAX
    lane.mean_us = 100_000
    assert lane.free_capacity(NOW_MS) == 2 * LOOKAHEAD_MS // 100
    lane.reserved, lane.waiting_count = 10, 20
    assert lane.free_capacity(NOW_MS) == 2 * LOOKAHEAD_MS // 100 - 30


def test_a_slow_lane_holds_as_many_deliveries_as_its_limit() -> None:
    lane: Lane[int] = Lane(1, 1)
    lane.in_flight_max = 16
    lane.mean_us = 15_000_000
    assert lane.free_capacity(NOW_MS) == 16


@pytest.mark.parametrize("failures", [0, 1])
def test_a_rate_limited_lane_holds_no_more_than_its_rate(failures: int) -> None:
    """With more deliveries, their leases would expire before their attempts start."""
    lane: Lane[int] = Lane(1, 1)
    lane.in_flight_max = 256
    lane.breaker = Breaker(failures)
    lane.start_interval_ms = 1000
    assert lane.free_capacity(NOW_MS) == LOOKAHEAD_MS // 1000
    lane.start_interval_ms = 2 * LOOKAHEAD_MS
    assert lane.free_capacity(NOW_MS) == 1


def test_a_failing_or_stalled_lane_holds_few_deliveries() -> None:
    lane: Lane[int] = Lane(1, 1)
    lane.in_flight_max = 4
    lane.breaker = Breaker(1)
    assert lane.free_capacity(NOW_MS) == 4
    lane.breaker = Breaker()
    lane.in_flight, lane.last_end_ms = WINDOW_START, NOW_MS - STALLED_MS_MIN
    assert lane.free_capacity(NOW_MS) == LANE_WAITING_MAX
    assert lane.free_capacity(NOW_MS + 1) == 4


def test_a_lane_with_an_open_breaker_holds_only_its_probe() -> None:
    lane: Lane[int] = Lane(1, 1)
    lane.in_flight_max = 4
    lane.breaker = Breaker(failures=10, probe_at=NOW_MS + 1000, probe_wait_ms=1000)
    assert lane.free_capacity(NOW_MS) == 1
    lane.in_flight = 1
    assert lane.free_capacity(NOW_MS) == 0
    lane.waiting_count = 7
    assert lane.free_capacity(NOW_MS) == 0
