"""Retention: removes what is older than the operator wants to keep, in bites that traffic does not feel."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any, Final

import structlog

from uplift_server.core.operations.partitions import PARTITIONS_PER_RETENTION, partition_duration_ms
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.core.timestamps import format_timestamp
from uplift_server.delivery.ports import Clock, SingletonJobs
from uplift_server.observe.counters import EngineCounters
from uplift_server.store import retention_clock
from uplift_server.store.cleanup import EVENTS, RETENTION_RULES, Key, RetentionRule, delete_expired, find_expired
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.partitions import Partition, Partitions

BITE_PAUSE_MS: Final = 20
PAUSES_AS_LONG: Final = 9
"""How many times as long as a bite of a partition the pause after it is, where few partitions wait to go."""
THIN_PAUSE_MS_MIN: Final = 5
THIN_PAUSE_MS_MAX: Final = 100
THIN_SHARE: Final = 2
"""What has ended may take half as long to go as a partition lasts: only then the next one ends, and traffic needs the
machine now. Beside 500 deliveries a second that went, p99 at 300 events/s was 5.2 instead of 4.0 ms."""
THIN_PAUSE_MS_LONGEST: Final = 1_000
"""Slower, nobody gains anything."""
BEHIND_PARTITIONS: Final = PARTITIONS_PER_RETENTION
"""If so many are to go, more has come all the time than went: pauses are as short as they can be, and longer the fewer
there are."""
ROUND_EVERY_MS: Final = 60_000
LOOK_AGAIN_EVERY_MS: Final = 3_600_000
"""After how long what was old and still needed is looked at again: there may be any number of it."""
_DELIVERIES: Final = "deliveries"
_log = structlog.get_logger()


class Retention:
    """Looks once a minute for what is past its retention (ms; 0: keep everything)."""

    def __init__(
        self, database: Database, jobs: SingletonJobs, clock: Clock, measures: EngineCounters, *, retention_ms: int
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._clock = clock
        self._measures = measures
        self._retention_ms = retention_ms
        self._partition_lasts_ms = partition_duration_ms(retention_ms)
        self._places: dict[str, tuple[Any, ...] | None] = {}
        """By table, behind what was old and stayed."""
        self._looked_again_at = 0
        self._distrust_logged_at = 0
        self._thinned: dict[Partition, Key] = {}
        """How far the thinning of a partition has come that was broken off for everything else to have its turn."""
        self._in_the_middle = False
        """Whether it was broken off in this pass."""

    @property
    def has_work(self) -> bool:
        """Whether there will be anything for it to do."""
        return bool(self._retention_ms) or self._partitions is not None

    async def run(self, stopping: asyncio.Event) -> None:
        """Prune until stopped."""
        while not stopping.is_set():
            if not self._in_the_middle:
                await self._clock.wait(stopping, ROUND_EVERY_MS)
            self._in_the_middle = False
            if not self._jobs.holds(SingletonJob.RETENTION):
                continue
            if self._measures.retention_round_at is None:
                # Who never comes to the end is late, too.
                self._measures.retention_round_at = self._clock.now_ms()
            try:
                if await self._clock_is_trusted():
                    await self.prune_once(stopping)
            except Unavailable:
                continue
            except Exception:
                # What is too old can stay for a while: a defect in this stops nothing else.
                _log.exception("a defect in retention; it goes on")

    async def _clock_is_trusted(self) -> bool:
        """Whether retention can trust the clock. Otherwise, an operator has to confirm it."""
        if not self._retention_ms:
            return True
        now = self._clock.now_ms()
        last_seen_at = await self._database.write(
            lambda c: retention_clock.observe(c, now=now, retention_ms=self._retention_ms)
        )
        if last_seen_at is not None and now - self._distrust_logged_at >= LOOK_AGAIN_EVERY_MS:
            self._distrust_logged_at = now
            _log.error(
                "retention stopped: the clock jumped forward",
                last_seen_at=format_timestamp(last_seen_at),
                remedy="check the clock, then run `uplift-server retention resume`",
            )
        return last_seen_at is None

    async def prune_once(self, stopping: asyncio.Event) -> Counter[str]:
        """One pass over everything old; how many rows of which table went, not counting what goes with them.

        It thins partitions for no longer than a pass is to take: the next goes on with that.
        """
        now = self._clock.now_ms()
        # Also when the clock was set back: what has been passed over may be old once more.
        if abs(now - self._looked_again_at) >= LOOK_AGAIN_EVERY_MS:
            self._looked_again_at = now
            self._places.clear()
        # First, since what is removed may take as long as it does.
        if self._partitions is not None and self._partition_lasts_ms is not None:
            await self._begin_partition(self._partitions, now, self._partition_lasts_ms)
        gone: Counter[str] = Counter()
        if self._retention_ms:
            for kept in RETENTION_RULES:
                gone[kept.name] = await self._remove(kept, now - self._retention_ms, stopping)
        if self._goes_on(stopping):
            self._measures.retention_round_at = self._clock.now_ms()
        return gone

    @property
    def _partitions(self) -> Partitions | None:
        return None if self._partition_lasts_ms is None else self._database.partitions

    async def _remove(self, kept: RetentionRule, before: int, stopping: asyncio.Event) -> int:
        partitions = self._partitions
        if kept is not EVENTS or partitions is None:
            return await self._prune(kept, before, stopping)
        count = 0
        try:
            count = await self._drop_old(partitions, before, stopping)
        except Unavailable as error:
            _log.info("old partitions were not dropped; it is tried again in a minute", cause=str(error))
        first_whole = await partitions.first_droppable_seq()
        # Row by row goes what was kept of old partitions, and is needed no more.
        by_row = replace(kept, only=(*kept.only, kept.key[0] < first_whole))
        return count + await self._prune(by_row, before, stopping)

    async def _drop_old(self, partitions: Partitions, before: int, stopping: asyncio.Event) -> int:
        looks_again = EVENTS.name not in self._places
        count = 0
        until = self._clock.now_ms() + ROUND_EVERY_MS
        ended = await partitions.list_droppable(before=before)
        for number, partition in enumerate(ended):
            if not await self._thin(partitions, partition, stopping, waiting=len(ended) - number, until=until):
                break
            count += self._noted(EVENTS, await partitions.drop(partition))
        await partitions.drop_empty()
        if count or looks_again:
            await self._sweep(partitions, stopping)
        return count

    async def _thin(
        self, partitions: Partitions, partition: Partition, stopping: asyncio.Event, *, waiting: int, until: int
    ) -> bool:
        """Remove its deliveries that have ended; whether that was brought to its end, and not broken off.

        The more partitions are waiting to go, the less it rests. It goes on until an instant (Unix ms).
        """
        numbers = await partitions.count_seqs(partition)
        place = self._thinned.pop(partition, None)
        last_seq = partition.first_seq if place is None else place[0]
        while self._goes_on(stopping):
            began = self._clock.now_ms()
            if began >= until:
                self._thinned, self._in_the_middle = {} if place is None else {partition: place}, True
                return False
            bite = await partitions.delete_ended_deliveries(partition, after=place)
            self._measures.removed[_DELIVERIES] += bite.removed
            place = bite.position
            if place is None:
                return self._goes_on(stopping)
            share, last_seq = (place[0] - last_seq) / max(1, numbers), place[0]
            planned_ms = (self._partition_lasts_ms or 0) / THIN_SHARE * share / waiting
            await self._clock.wait(stopping, _pause_ms(self._clock.now_ms() - began, planned_ms, waiting))
        return False

    async def _sweep(self, partitions: Partitions, stopping: asyncio.Event) -> None:
        first_whole = await partitions.first_droppable_seq()
        place: Key | None = None
        while self._goes_on(stopping):
            bite = await partitions.delete_leftovers(first_whole, after=place)
            place = bite.position
            if place is None:
                break
            await self._clock.wait(stopping, BITE_PAUSE_MS)

    async def _begin_partition(self, partitions: Partitions, now: int, lasts_ms: int) -> None:
        if self._retention_ms:
            await partitions.mark_for_row_cleanup(before=now - self._retention_ms, lasts_ms=lasts_ms)
        try:
            await partitions.start_next(now=now, lasts_ms=lasts_ms)
        except Unavailable as error:
            _log.info("the next partition was not begun; it is tried again in a minute", cause=str(error))

    async def _prune(self, kept: RetentionRule, before: int, stopping: asyncio.Event) -> int:
        count = 0
        after = self._places.get(kept.name)
        while self._goes_on(stopping):
            at = after
            seen = await self._database.read(lambda c: find_expired(c, kept, before=before, after=at))  # noqa: B023 - run before the next turn
            if seen.keys:
                doomed = seen.keys
                removed = await self._database.write(lambda c: delete_expired(c, kept, doomed, before=before))  # noqa: B023
                count += self._noted(kept, removed)
            after = seen.position
            if kept.can_be_kept:
                self._places[kept.name] = after
            if not seen.has_more:
                break
            await self._clock.wait(stopping, BITE_PAUSE_MS)
        return count

    def _noted(self, kept: RetentionRule, count: int) -> int:
        self._measures.removed[kept.name] += count
        return count

    def _goes_on(self, stopping: asyncio.Event) -> bool:
        return not stopping.is_set() and self._jobs.holds(SingletonJob.RETENTION)


def _pause_ms(took_ms: float, planned_ms: float, waiting: int) -> float:
    """The pause after a bite that took so long, while so many partitions wait to go, and a plan leaves so much time."""
    # The longer it took, the more others have to do.
    rested_ms = PAUSES_AS_LONG * took_ms * max(0, BEHIND_PARTITIONS - waiting) // BEHIND_PARTITIONS
    gently_ms = min(max(THIN_PAUSE_MS_MIN, rested_ms), THIN_PAUSE_MS_MAX)
    return gently_ms if waiting >= BEHIND_PARTITIONS else max(gently_ms, min(planned_ms, THIN_PAUSE_MS_LONGEST))
