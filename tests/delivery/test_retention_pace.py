"""The pace at which partitions are thinned: gently beside traffic, and as fast as it can be where too much waits."""

import pytest
from tests.engines import Place

from uplift_server.delivery.retention import (
    BEHIND_PARTITIONS,
    PAUSES_AS_LONG,
    THIN_PAUSE_MS_MAX,
    THIN_PAUSE_MS_MIN,
    Retention,
)
from uplift_server.observe.measures import EngineMeasures
from uplift_server.store.partitions import Bite, Partition
from uplift_server.store.upkeep import Key

from .test_retention import pruned
from .world import DAY, VirtualClock, World

KEEP_MS = 28 * DAY
BITES = 3
"""What a partition is thinned in, before one that finds nothing more."""


class OldPartitions:
    """So many partitions that are to go, each bite of which takes a while (ms)."""

    def __init__(self, clock: VirtualClock, count: int, takes_ms: int) -> None:
        self._clock = clock
        self._old = [Partition(number, number + 1) for number in range(count)]
        self._takes_ms = takes_ms
        self._last_end: int | None = None
        self.pauses: list[int] = []
        """Between two bites of the same partition (ms)."""
        self.dropped: list[Partition] = []

    async def begin(self, *, now: int, lasts_ms: int) -> bool:
        return False

    async def ended(self, *, before: int) -> list[Partition]:
        return self._old

    async def leave(self, *, before: int, lasts_ms: int) -> None: ...

    async def first_whole(self) -> int:
        return 0

    async def thin(self, partition: Partition, *, after: Key | None) -> Bite:
        bite = 0 if after is None else after[0]
        if after is not None and self._last_end is not None:
            self.pauses.append(self._clock.now - self._last_end)
        self._clock.now += self._takes_ms
        self._last_end = self._clock.now
        return Bite(100, (bite + 1,)) if bite < BITES else Bite(0, None)

    async def drop(self, partition: Partition) -> int:
        self.dropped.append(partition)
        return 300

    async def drop_empty(self) -> None: ...

    async def sweep(self, before_seq: int, *, after: Key | None) -> Bite:
        return Bite(0, None)


async def thinned(place: Place, *, partitions: int, takes_ms: int) -> OldPartitions:
    """A pass of retention over old partitions."""
    async with World(place) as world:
        old = OldPartitions(world.clock, partitions, takes_ms)
        world.database.partitions = old
        measures = EngineMeasures()
        retention = Retention(world.database, world.clock, measures, retention_ms=KEEP_MS)
        assert await pruned(world, retention) == {"events": 300 * partitions}
        assert len(old.dropped) == partitions
        assert len(old.pauses) == BITES * partitions
        assert +measures.removed == {"events": 300 * partitions, "deliveries": 100 * BITES * partitions}
        return old


@pytest.mark.parametrize(
    ("takes_ms", "pause_ms"),
    [(0, THIN_PAUSE_MS_MIN), (4, 4 * PAUSES_AS_LONG), (1000, THIN_PAUSE_MS_MAX)],
)
async def test_the_longer_a_bite_takes_the_longer_others_have_their_turn(
    place: Place, takes_ms: int, pause_ms: int
) -> None:
    old = await thinned(place, partitions=BEHIND_PARTITIONS - 1, takes_ms=takes_ms)
    assert set(old.pauses) == {pause_ms}


async def test_it_hurries_until_no_more_than_came_in_one_retention_waits_to_go(place: Place) -> None:
    old = await thinned(place, partitions=BEHIND_PARTITIONS + 2, takes_ms=4)
    hurried, gently = old.pauses[: 3 * BITES], old.pauses[3 * BITES :]
    assert set(hurried) == {THIN_PAUSE_MS_MIN}
    assert set(gently) == {4 * PAUSES_AS_LONG}
