"""States, selection and rate of replays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.deliveries.replays import (
    BURST_MS,
    ReplayRate,
    ReplayState,
    can_change_to,
    parse_statuses,
    replay_capacity,
)
from uplift_server.core.lifecycle import Status
from uplift_server.core.scheduling.circuit_breaker import Breaker
from uplift_server.core.scheduling.lane import AttemptKind, Lane

RUNNING, PAUSED, COMPLETED, CANCELLED = ReplayState


def test_allowed_changes_of_a_replay() -> None:
    allowed = {(before, after) for before in ReplayState for after in ReplayState if can_change_to(before, after)}
    assert allowed == {
        (RUNNING, RUNNING),
        (RUNNING, PAUSED),
        (RUNNING, CANCELLED),
        (PAUSED, RUNNING),
        (PAUSED, PAUSED),
        (PAUSED, CANCELLED),
        (CANCELLED, CANCELLED),
    }


def test_statuses_that_can_be_replayed() -> None:
    assert parse_statuses(["failed"]) == ((Status.FAILED,), [])
    assert parse_statuses(["cancelled", "failed", "failed", "delivered"]) == (
        (Status.DELIVERED, Status.FAILED, Status.CANCELLED),
        [],
    )


@pytest.mark.parametrize(
    ("names", "codes", "words"),
    [
        (["pending"], ["status_not_replayable"], "on schedule"),
        (["held"], ["status_not_replayable"], "Enable the endpoint"),
        (["lost", "pending"], ["value_unknown", "status_not_replayable"], "does not exist"),
        ([], ["required"], "at least one of delivered, failed, cancelled"),
    ],
)
def test_statuses_that_cannot_be_replayed(names: list[str], codes: list[str], words: str) -> None:
    found, problems = parse_statuses([*names])
    assert found == ()
    assert [problem.code for problem in problems] == codes
    assert {problem.field for problem in problems} == {"status"}
    assert any(words in problem.message for problem in problems)


def test_no_status_is_allowed_with_missing_events() -> None:
    assert parse_statuses([], may_be_empty=True) == ((), [])


def test_valid_names_are_parsed_despite_invalid_ones() -> None:
    found, problems = parse_statuses(["held", "cancelled"])
    assert found == (Status.CANCELLED,)
    assert len(problems) == 1


def test_the_first_release_is_immediate_and_the_next_after_the_interval() -> None:
    rate = ReplayRate(10, 5000)
    assert rate.available(4999) == 0
    assert rate.available(5000) == 1
    rate = rate.after_release(5000, 1)
    assert (rate.next_ms, rate.available(5099), rate.available(5100)) == (5100, 0, 1)


def test_late_releases_do_not_lower_the_rate() -> None:
    rate = ReplayRate(100, 1000)
    assert rate.available(1025) == 3
    assert rate.after_release(1025, 3).next_ms == 1030


def test_idle_time_causes_no_burst() -> None:
    assert ReplayRate(100, 1000).available(3_600_000) == 1 + BURST_MS // 10
    assert ReplayRate(100, 1000).after_release(3_600_000, 0).next_ms == 3_600_000 - BURST_MS


@given(st.integers(1, 1000), st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_no_time_span_exceeds_its_rate(per_second: int, waits: list[int]) -> None:
    rate, now, released = ReplayRate(per_second, 0), 0, 0
    for wait in waits:
        now += wait
        count = rate.available(now)
        released += count
        rate = rate.after_release(now, count)
    assert released <= 1 + now * per_second / 1000 + 1e-6


def full_lane() -> Lane[int]:
    """Return a lane whose capacity for waiting deliveries is used up."""
    lane: Lane[int] = Lane(1, 1)
    lane.in_flight_max, lane.mean_us = 2, 10_000_000
    lane.waiting_count = 2
    assert lane.free_capacity(0) == 0
    return lane


def test_a_replay_has_the_capacity_of_its_lane_or_one_if_it_is_full() -> None:
    assert replay_capacity(Lane(1, 1), 0) == Lane(1, 1).free_capacity(0)
    lane = full_lane()
    assert replay_capacity(lane, 0) == 1
    lane.waiting[AttemptKind.REPLAY].append(1)
    assert replay_capacity(lane, 0) == 0


def test_a_full_failing_or_stalled_lane_has_no_place_for_a_replay() -> None:
    failing, hanging = full_lane(), full_lane()
    failing.breaker = Breaker(failures=1)
    hanging.in_flight = 4
    assert replay_capacity(failing, 0) == 0
    assert replay_capacity(hanging, 1_000_000) == 0
