"""Detection of clock jumps that would make retention delete too much."""

import pytest

from uplift_server.core.operations.retention import GAP_MS_MIN, clock_jumped

DAY = 24 * 3600 * 1000


@pytest.mark.parametrize(
    ("start_interval_ms", "retention_ms", "jumped"),
    [
        (60_000, 30 * DAY, False),
        (15 * DAY, 30 * DAY, False),
        (15 * DAY + 1, 30 * DAY, True),
        (GAP_MS_MIN, 60_000, False),
        (GAP_MS_MIN + 1, 60_000, True),
        (-DAY, 30 * DAY, False),
    ],
)
def test_the_gap_is_compared_with_half_the_retention(start_interval_ms: int, retention_ms: int, jumped: bool) -> None:
    assert clock_jumped(1_764_000_000_000, 1_764_000_000_000 + start_interval_ms, retention_ms) is jumped
