"""The duration for which a partition of the event tables accepts events before the next one begins."""

from typing import Final

_DAY_MS: Final = 86_400_000
RETENTION_MS_MIN: Final = 7 * _DAY_MS
"""With a shorter retention, rows are deleted one by one. Partitions would keep them noticeably longer."""
PARTITIONS_PER_RETENTION: Final = 28
"""The number of partitions for the retention period. Data is kept at most 1/28 longer than the retention."""
PARTITION_MS_FOREVER: Final = 30 * _DAY_MS
"""The duration of a partition if data is kept forever. Twelve partitions a year keep indexes small."""
PARTITIONS_MAX: Final = 120
"""Maximum number of partitions. Each one slows down searches by anything but time."""


def partition_duration_ms(retention_ms: int) -> int | None:
    """Return how long (ms) a partition accepts events, or None for no partitions.

    A `retention_ms` of 0 keeps events forever.
    """
    if retention_ms == 0:
        return PARTITION_MS_FOREVER
    return None if retention_ms < RETENTION_MS_MIN else retention_ms // PARTITIONS_PER_RETENTION


def is_full(begun_at: int, *, now: int, lasts_ms: int, partitions: int) -> bool:
    """Return whether the partition that began at `begun_at` (Unix ms) has lasted long enough.

    A start in the future comes from a clock that has since been corrected.
    """
    return partitions < PARTITIONS_MAX and (now - begun_at >= lasts_ms or begun_at > now)
