"""Decides how long a partition of the event tables accepts events before the next partition begins."""

from typing import Final

_DAY_MS: Final = 86_400_000
RETENTION_MS_MIN: Final = 7 * _DAY_MS
"""Minimum retention period, in ms, for which the event tables are partitioned.

With a shorter period, the server deletes rows one by one, because partitions would keep the rows noticeably longer.
"""
PARTITIONS_PER_RETENTION: Final = 28
"""Number of partitions in the retention period. The server keeps data for at most 1/28 longer than that period."""
PARTITION_MS_FOREVER: Final = 30 * _DAY_MS
"""Duration of a partition, in ms, if the server keeps data forever. Twelve partitions a year keep indexes small."""
PARTITIONS_MAX: Final = 120
"""Maximum number of partitions. Each partition slows down searches that do not filter by time."""


def partition_duration_ms(retention_ms: int) -> int | None:
    """Return how long (ms) a partition accepts events, or None if the tables have no partitions.

    A `retention_ms` of 0 keeps events forever.
    """
    if retention_ms == 0:
        return PARTITION_MS_FOREVER
    return None if retention_ms < RETENTION_MS_MIN else retention_ms // PARTITIONS_PER_RETENTION


def is_full(begun_at: int, *, now: int, lasts_ms: int, partitions: int) -> bool:
    """Return whether a partition is full, so that the next partition must begin. `begun_at` is Unix ms.

    If the clock was set back, `begun_at` can be in the future. In this case, the partition also counts as full. If
    there are already PARTITIONS_MAX partitions, no partition is full.
    """
    return partitions < PARTITIONS_MAX and (now - begun_at >= lasts_ms or begun_at > now)
