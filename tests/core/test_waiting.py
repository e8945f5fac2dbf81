"""The reasons why a pending delivery waits."""

import pytest

from uplift_server.core.scheduling.waiting import Waiting, WaitingFor, waiting_for

NOW = 1_764_000_000_000


@pytest.mark.parametrize(
    ("due_at", "next_probe_at", "expected"),
    [
        (NOW + 1, None, Waiting(WaitingFor.SCHEDULE, NOW + 1)),
        (NOW, None, Waiting(WaitingFor.TURN, NOW)),
        (None, None, Waiting(WaitingFor.TURN, None)),
        (NOW, NOW + 5, Waiting(WaitingFor.PROBE, NOW + 5)),
        (None, NOW + 5, Waiting(WaitingFor.PROBE, NOW + 5)),
        (NOW + 5, NOW + 5, Waiting(WaitingFor.PROBE, NOW + 5)),
        (NOW + 6, NOW + 5, Waiting(WaitingFor.SCHEDULE, NOW + 6)),
        # The probe is in flight: due deliveries wait for its outcome.
        (NOW, NOW - 5, Waiting(WaitingFor.PROBE, NOW - 5)),
        (NOW + 1, NOW - 5, Waiting(WaitingFor.SCHEDULE, NOW + 1)),
    ],
)
def test_a_delivery_waits_for_the_later_of_schedule_and_probe(
    due_at: int | None, next_probe_at: int | None, expected: Waiting
) -> None:
    assert waiting_for(due_at=due_at, next_probe_at=next_probe_at, now_ms=NOW) == expected
