"""Retention: deletes expired rows in small batches, because large batches would delay other writes."""

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

BATCH_PAUSE_MS: Final = 20
PAUSE_FACTOR: Final = 9
"""The pause after each batch deleted from a partition, as a multiple of the batch's duration.

The multiple decreases as the number of expired partitions increases.
"""
PARTITION_PAUSE_MS_MIN: Final = 5
PARTITION_PAUSE_MS_MAX: Final = 100
PARTITION_DURATION_DIVISOR: Final = 2
"""The planned total pause during the deletion of a partition is at most the partition's period divided by this number.

The pauses spread the deletion, because it delays deliveries. At 300 events/s, the deletion of 500 deliveries/s
increased the p99 delivery time from 4.0 ms to 5.2 ms.
"""
PLANNED_PAUSE_MS_MAX: Final = 1_000
BEHIND_PARTITIONS: Final = PARTITIONS_PER_RETENTION
"""With this many expired partitions or more, pauses are minimal, because deletion is slower than ingest."""
ROUND_EVERY_MS: Final = 60_000
RECHECK_EVERY_MS: Final = 3_600_000
"""The interval between two checks of the expired rows that earlier passes had to keep, in ms."""
_DELIVERIES: Final = "deliveries"
_log = structlog.get_logger()


class Retention:
    """Deletes expired rows at intervals. It deletes nothing if `retention_ms` is 0."""

    def __init__(
        self,
        database: Database,
        jobs: SingletonJobs,
        clock: Clock,
        counters: EngineCounters,
        *,
        retention_ms: int,
        every_ms: int,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._clock = clock
        self._counters = counters
        self._retention_ms = retention_ms
        self._every_ms = every_ms
        self._partition_lasts_ms = partition_duration_ms(retention_ms)
        self._positions: dict[str, tuple[Any, ...] | None] = {}
        """For each table whose expired rows can still be needed: the key after which the next pass continues."""
        self._rechecked_at = 0
        self._distrust_logged_at = 0
        self._interrupted: dict[Partition, Key] = {}
        """For the partition whose deletion was interrupted: the key after which the next pass continues."""
        self._was_interrupted = False
        """Whether the deletion of a partition was interrupted in this pass."""

    @property
    def has_work(self) -> bool:
        """Whether this job has work: retention is configured, or the store has partitions."""
        return bool(self._retention_ms) or self._partitions is not None

    async def run(self, stopping: asyncio.Event) -> None:
        """Delete expired rows until the process stops."""
        while not stopping.is_set():
            if not self._was_interrupted:
                await self._clock.wait(stopping, self._every_ms)
            self._was_interrupted = False
            if not self._jobs.holds(SingletonJob.RETENTION):
                continue
            if self._counters.retention_round_at is None:
                # Until a pass is complete, the metric measures the time since the start of the first pass.
                self._counters.retention_round_at = self._clock.now_ms()
            try:
                if await self._clock_is_trusted():
                    await self.prune_once(stopping)
            except Unavailable:
                continue
            except Exception:
                # A defect in retention must not stop deliveries.
                _log.exception("retention failed")

    async def _clock_is_trusted(self) -> bool:
        """Return whether the clock is trusted. After a jump forward, an operator must confirm the time."""
        if not self._retention_ms:
            return True
        now = self._clock.now_ms()
        last_seen_at = await self._database.write(
            lambda c: retention_clock.observe(c, now=now, retention_ms=self._retention_ms)
        )
        if last_seen_at is not None and now - self._distrust_logged_at >= RECHECK_EVERY_MS:
            self._distrust_logged_at = now
            _log.error(
                "retention stopped: the clock jumped forward",
                last_seen_at=format_timestamp(last_seen_at),
                how_to_fix="check the clock, then run `uplift-server retention resume`",
            )
        return last_seen_at is None

    async def prune_once(self, stopping: asyncio.Event) -> Counter[str]:
        """Delete expired rows once. Return the number of deleted rows per table, excluding dependent rows.

        A pass can end before it has deleted a whole partition. The next pass then continues.
        """
        now = self._clock.now_ms()
        # Use `abs`, because a clock that was set back also invalidates the positions.
        if abs(now - self._rechecked_at) >= RECHECK_EVERY_MS:
            self._rechecked_at = now
            self._positions.clear()
        # Create the next partition first, because deletion can take a long time.
        if self._partitions is not None and self._partition_lasts_ms is not None:
            await self._begin_partition(self._partitions, now, self._partition_lasts_ms)
        deleted: Counter[str] = Counter()
        if self._retention_ms:
            for rule in RETENTION_RULES:
                deleted[rule.name] = await self._delete(rule, now - self._retention_ms, stopping)
        if self._may_continue(stopping):
            self._counters.retention_round_at = self._clock.now_ms()
        return deleted

    @property
    def _partitions(self) -> Partitions | None:
        return None if self._partition_lasts_ms is None else self._database.partitions

    async def _delete(self, rule: RetentionRule, before: int, stopping: asyncio.Event) -> int:
        partitions = self._partitions
        if rule is not EVENTS or partitions is None:
            return await self._prune(rule, before, stopping)
        count = 0
        try:
            count = await self._drop_old(partitions, before, stopping)
        except Unavailable as error:
            _log.info("expired partitions not dropped", cause=str(error))
        first_whole = await partitions.first_droppable_seq()
        # Dropped partitions leave behind rows that are still needed. Delete these rows one by one when they expire.
        by_row = replace(rule, only=(*rule.only, rule.key[0] < first_whole))
        return count + await self._prune(by_row, before, stopping)

    async def _drop_old(self, partitions: Partitions, before: int, stopping: asyncio.Event) -> int:
        rechecks = EVENTS.name not in self._positions
        count = 0
        until = self._clock.now_ms() + ROUND_EVERY_MS
        ended = await partitions.list_droppable(before=before)
        for number, partition in enumerate(ended):
            if not await self._clean_partition(
                partitions, partition, stopping, waiting=len(ended) - number, until=until
            ):
                break
            count += self._count(EVENTS, await partitions.drop(partition))
        await partitions.drop_empty()
        if count or rechecks:
            await self._sweep(partitions, stopping)
        return count

    async def _clean_partition(
        self, partitions: Partitions, partition: Partition, stopping: asyncio.Event, *, waiting: int, until: int
    ) -> bool:
        """Delete the ended deliveries of a partition. Return whether all of them were deleted.

        The method stops at the time `until` (Unix ms), even if ended deliveries are left. `waiting` is the
        number of expired partitions. The more partitions have expired, the shorter the pauses between batches.
        """
        numbers = await partitions.count_seqs(partition)
        position = self._interrupted.pop(partition, None)
        last_seq = partition.first_seq if position is None else position[0]
        while self._may_continue(stopping):
            began = self._clock.now_ms()
            if began >= until:
                self._interrupted, self._was_interrupted = {} if position is None else {partition: position}, True
                return False
            batch = await partitions.delete_ended_deliveries(partition, after=position)
            self._counters.removed[_DELIVERIES] += batch.removed
            position = batch.position
            if position is None:
                return self._may_continue(stopping)
            share, last_seq = (position[0] - last_seq) / max(1, numbers), position[0]
            planned_ms = (self._partition_lasts_ms or 0) / PARTITION_DURATION_DIVISOR * share / waiting
            await self._clock.wait(stopping, _pause_ms(self._clock.now_ms() - began, planned_ms, waiting))
        return False

    async def _sweep(self, partitions: Partitions, stopping: asyncio.Event) -> None:
        first_whole = await partitions.first_droppable_seq()
        position: Key | None = None
        while self._may_continue(stopping):
            batch = await partitions.delete_leftovers(first_whole, after=position)
            position = batch.position
            if position is None:
                break
            await self._clock.wait(stopping, BATCH_PAUSE_MS)

    async def _begin_partition(self, partitions: Partitions, now: int, lasts_ms: int) -> None:
        if self._retention_ms:
            await partitions.mark_for_row_cleanup(before=now - self._retention_ms, lasts_ms=lasts_ms)
        try:
            await partitions.start_next(now=now, lasts_ms=lasts_ms)
        except Unavailable as error:
            _log.info("next partition not created", cause=str(error))

    async def _prune(self, rule: RetentionRule, before: int, stopping: asyncio.Event) -> int:
        count = 0
        after = self._positions.get(rule.name)
        while self._may_continue(stopping):
            at = after
            seen = await self._database.read(lambda c: find_expired(c, rule, before=before, after=at))  # noqa: B023 - run before the next turn
            if seen.keys:
                expired = seen.keys
                deleted = await self._database.write(lambda c: delete_expired(c, rule, expired, before=before))  # noqa: B023
                count += self._count(rule, deleted)
            after = seen.position
            if rule.can_be_kept:
                self._positions[rule.name] = after
            if not seen.has_more:
                break
            await self._clock.wait(stopping, BATCH_PAUSE_MS)
        return count

    def _count(self, rule: RetentionRule, count: int) -> int:
        self._counters.removed[rule.name] += count
        return count

    def _may_continue(self, stopping: asyncio.Event) -> bool:
        return not stopping.is_set() and self._jobs.holds(SingletonJob.RETENTION)


def _pause_ms(took_ms: float, planned_ms: float, waiting: int) -> float:
    """Return the pause between two batches of deletions, in ms. `waiting` is the number of expired partitions."""
    # Pause longer after a slow batch: it shows that the database is busy.
    load_ms = PAUSE_FACTOR * took_ms * max(0, BEHIND_PARTITIONS - waiting) // BEHIND_PARTITIONS
    pause_ms = min(max(PARTITION_PAUSE_MS_MIN, load_ms), PARTITION_PAUSE_MS_MAX)
    return pause_ms if waiting >= BEHIND_PARTITIONS else max(pause_ms, min(planned_ms, PLANNED_PAUSE_MS_MAX))
