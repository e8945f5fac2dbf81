"""The interval between commits, which grows with the load of the process."""

import pytest

from uplift_server.core.scheduling.commit_interval import (
    COMMIT_INTERVAL_MS_MAX,
    CORES_BUSY,
    CORES_FREE,
    commit_interval_ms,
)


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (0.0, 0.0),
        (CORES_FREE, 0.0),
        ((CORES_FREE + CORES_BUSY) / 2, COMMIT_INTERVAL_MS_MAX / 2),
        (CORES_BUSY, COMMIT_INTERVAL_MS_MAX),
        (3.0, COMMIT_INTERVAL_MS_MAX),
    ],
)
def test_the_interval_grows_with_the_load(cores: float, expected: float) -> None:
    assert commit_interval_ms(cores) == expected
