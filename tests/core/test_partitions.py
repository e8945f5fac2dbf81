"""The time for which a partition of the event tables accepts events."""

import pytest

from uplift_server.core.operations.partitions import (
    PARTITION_MS_FOREVER,
    PARTITIONS_MAX,
    RETENTION_MS_MIN,
    is_full,
    partition_duration_ms,
)

DAY = 86_400_000


@pytest.mark.parametrize(
    ("retention_ms", "expected"),
    [
        (0, PARTITION_MS_FOREVER),
        (60_000, None),
        (RETENTION_MS_MIN - 1, None),
        (RETENTION_MS_MIN, RETENTION_MS_MIN // 28),
        (28 * DAY, DAY),
        (3650 * DAY, 3650 * DAY // 28),
    ],
)
def test_partitions_extend_the_retention_by_at_most_a_twenty_eighth(retention_ms: int, expected: int | None) -> None:
    assert partition_duration_ms(retention_ms) == expected


def test_a_partition_ends_after_its_duration_unless_there_are_too_many() -> None:
    assert not is_full(1000, now=1000 + DAY - 1, lasts_ms=DAY, partitions=1)
    assert is_full(1000, now=1000 + DAY, lasts_ms=DAY, partitions=PARTITIONS_MAX - 1)
    assert is_full(1000 + DAY, now=1000, lasts_ms=DAY, partitions=1)
    assert not is_full(1000, now=1000, lasts_ms=DAY, partitions=1)
    assert not is_full(1000, now=1000 + 9 * DAY, lasts_ms=DAY, partitions=PARTITIONS_MAX)
