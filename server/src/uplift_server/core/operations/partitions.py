"""For how long events go into one part of the store before the next is begun, where it has parts by time."""

from typing import Final

_DAY_MS: Final = 86_400_000
RETENTION_MS_MIN: Final = 7 * _DAY_MS
"""What is kept for less goes row by row, and on time: as a whole it would stay for a noticeable part of that longer."""
PARTITIONS_PER_RETENTION: Final = 28
"""So that nothing is kept for more than a twenty-eighth longer than it is to be."""
PARTITION_MS_FOREVER: Final = 30 * _DAY_MS
"""How long one lasts where everything is kept for ever: indexes stay small, and twelve a year are few."""
PARTITIONS_MAX: Final = 120
"""With so many no further one is begun: every one costs every search by anything but time something."""


def partition_duration_ms(retention_ms: int) -> int | None:
    """How long (ms) a partition takes events, by how long they are kept (ms; 0: for ever); None: there are none."""
    if retention_ms == 0:
        return PARTITION_MS_FOREVER
    return None if retention_ms < RETENTION_MS_MIN else retention_ms // PARTITIONS_PER_RETENTION


def is_full(begun_at: int, *, now: int, lasts_ms: int, partitions: int) -> bool:
    """Whether a partition that was begun at an instant (Unix ms) has lasted long enough, with so many in all.

    One that was begun in what is the future was begun by a clock that has been set right since.
    """
    return partitions < PARTITIONS_MAX and (now - begun_at >= lasts_ms or begun_at > now)
