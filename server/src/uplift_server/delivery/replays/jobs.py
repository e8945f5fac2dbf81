"""Replay jobs: release replay deliveries into the lanes in batches, at each replay's rate.

A job spreads the deliveries of a batch evenly over the time until its next batch. The number of released deliveries
without an outcome is limited. The database counts these deliveries before each release.
"""

import asyncio
import math
from collections.abc import Collection, Container, Sequence
from dataclasses import replace
from typing import Final

from uplift_server.core.deliveries.replays import BURST_MS, ReplayRate, ReplayState
from uplift_server.core.events.envelope import data_of
from uplift_server.core.events.filters import Filter
from uplift_server.core.ids import REPLAY, prefixed
from uplift_server.core.limits import LEASE_BATCH_BODY_BYTES_MAX, REPLAY_OUTSTANDING_MAX
from uplift_server.core.people.audit import SYSTEM, AuditEntry
from uplift_server.core.scheduling.lane import Lane
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.filters import FilterEvaluation
from uplift_server.delivery.ports import Clock, Shards
from uplift_server.delivery.scheduling.dispatcher import Dispatcher
from uplift_server.delivery.scheduling.due import DueEndpoints
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.delivery.sending.attempts import previous_state, unattempted
from uplift_server.delivery.sending.settler import Settler
from uplift_server.observe.counters import EngineCounters
from uplift_server.store import audit, endpoints, releases, replays
from uplift_server.store.contract import Database, Transaction
from uplift_server.store.errors import Conflict, Unavailable
from uplift_server.store.hot_records import Candidate, LeasedDelivery, ReplayBatch, ReplayLease
from uplift_server.store.replays import Replay

LOAD_PAGE: Final = 500
COUNT_ROWS: Final = 20_000
"""The maximum number of deliveries or events to count in one read."""
AHEAD_ROWS: Final = 20_000
"""The maximum number of deliveries or events to scan in one read of the next deliveries."""
AHEAD_MIN: Final = 16
AHEAD_MS: Final = 100
AHEAD_BODY_BYTES_MAX: Final = 256 * 1024
"""The job stops reading ahead when the total size of the bodies exceeds this number of bytes.

Up to this size, the job reads ahead as many deliveries as it sends within AHEAD_MS, but at least AHEAD_MIN.
"""
FILTERED_AHEAD: Final = 200
"""The minimum number of events to read ahead if a replay to an endpoint with a filter creates deliveries.

The filter may reject most of the events that have no delivery yet.
"""
FILTER_STEPS_PER_ROUND_MAX: Final = 50_000
"""The maximum total number of filter steps for the jobs that run at the same time.

Filter steps block the event loop. The last evaluation can exceed the maximum.
"""
COUNT_PAUSE_MS: Final = 5
RELEASE_EVERY_MS: Final = BURST_MS
"""The interval between two releases by a job, in ms. Each release requires a commit, which delays new events."""
FULL_WAIT_MS: Final = 50
CHECK_MS: Final = 250
"""The interval between two checks of a job that waits for its endpoint or for its last outcomes, in ms."""
JOBS_PER_ROUND_MAX: Final = 50
"""The maximum number of jobs that run at the same time."""
UNAVAILABLE_WAIT_MS: Final = 500
RETENTION_MARGIN_MS: Final = 3_600_000
"""A replay creates deliveries only for events that retention keeps for at least this much longer, in ms.

If half of the retention period is shorter, the limit is half of the retention period.
"""
IDLE_MS: Final = 3_600_000
"""The longest wait while no job is due, in ms. A new or changed replay ends the wait."""


class _Job:
    """A replay, and its next deliveries, which the job reads from the database before they are due."""

    __slots__ = ("ahead", "next_at", "rate", "replay")

    def __init__(self, replay: Replay, now: int) -> None:
        self.replay = replay
        self.rate = ReplayRate(replay.rate_per_second, now)
        self.next_at: float = now
        """The time when the job must run next (Unix ms)."""
        self.ahead = ReplayBatch((), replay.next_event_seq - 1)
        """The next deliveries, which were read ahead."""

    @property
    def exhausted(self) -> bool:
        """Whether no deliveries are left to release."""
        return not self.ahead.candidates and self.ahead.through >= self.replay.last_event_seq


class ReplayJobs:
    """Releases the deliveries of all unfinished replays."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        shards: Shards,
        lanes: DeliveryLanes,
        due: DueEndpoints,
        settler: Settler,
        dispatcher: Dispatcher,
        clock: Clock,
        counters: EngineCounters,
        *,
        lease_ms: int,
        retention_ms: int,
    ) -> None:
        self._database = database
        self._cache = cache
        self._shards = shards
        self._lanes = lanes
        self._due = due
        self._settler = settler
        self._release_lease = dispatcher.release_lease
        self._clock = clock
        self._counters = counters
        self._lease_ms = lease_ms
        self._missing_age_ms_max = retention_ms - min(RETENTION_MARGIN_MS, retention_ms // 2)
        self._jobs: dict[int, _Job] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._filter_steps = 0
        """The number of filter steps that are left for the running jobs."""
        self.stepping = 0
        """The number of jobs that are running now."""

    @property
    def known(self) -> Collection[int]:
        """The sequence numbers of the replays in memory."""
        return self._jobs.keys()

    async def load(self) -> None:
        """Load all unfinished replays. Raises Unavailable."""
        for replay in await self._unfinished():
            self.put(replay)

    async def take_over(self, endpoint_seqs: Container[int]) -> None:
        """Load the replays of endpoints that this process now owns. Raises Unavailable."""
        for replay in await self._unfinished():
            if replay.selection.endpoint_seq in endpoint_seqs:
                self._jobs.pop(replay.seq, None)
                self.put(replay)

    async def _unfinished(self) -> list[Replay]:
        found: list[Replay] = []
        while True:
            after = (found[-1].account_seq, found[-1].seq) if found else (0, 0)
            page = await self._database.read_with_priority(
                lambda c: replays.unfinished(c, after=after, limit=LOAD_PAGE)  # noqa: B023 - run before the next turn
            )
            found += page
            if len(page) < LOAD_PAGE:
                return found

    def put(self, replay: Replay) -> None:
        """Add or update a replay, or remove a completed replay.

        If the replay is not running, restore the previous status of the endpoint's queued replay deliveries.
        """
        now = self._clock.now_ms()
        job = self._jobs.get(replay.seq)
        if replay.completed_at is not None:
            self._jobs.pop(replay.seq, None)
        elif job is None:
            self._jobs[replay.seq] = _Job(replay, now)
        else:
            job.replay = replay
            job.next_at = now
        if replay.state is not ReplayState.RUNNING:
            for delivery in self._lanes.take_replays(replay.selection.endpoint_seq):
                self._return(delivery, now)
            self._settler.flush()
        self._wake.set()

    def runs(self, replay_seq: int) -> bool:
        """Return whether the server may send deliveries of a replay."""
        job = self._jobs.get(replay_seq)
        return job is not None and job.replay.state is ReplayState.RUNNING

    def wake_endpoint(self, endpoint_seq: int) -> None:
        """Check the replays of an endpoint that was enabled, taken over or deleted."""
        for job in self._jobs.values():
            if job.replay.selection.endpoint_seq == endpoint_seq:
                job.next_at = 0
                self._wake.set()

    def stop(self) -> None:
        """Release no more deliveries. `run` then returns soon."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Run due jobs until `stop` is called."""
        while not self._stopping:
            self._wake.clear()
            now = self._clock.now_ms()
            due = sorted((job for job in self._jobs.values() if job.next_at <= now), key=_next_at)[:JOBS_PER_ROUND_MAX]
            if due:
                self.stepping = len(due)
                self._filter_steps = FILTER_STEPS_PER_ROUND_MAX
                await asyncio.gather(*map(self._step, due))
                self.stepping = 0
            else:
                next_at = min((job.next_at for job in self._jobs.values()), default=math.inf)
                await self._clock.wait(self._wake, min(max(1, next_at - now), IDLE_MS))

    async def _step(self, job: _Job) -> None:
        now = self._clock.now_ms()
        if not self._shards.owns(job.replay.selection.endpoint_seq):
            # A handover wakes up the replay unless its endpoint was deleted. In that case, check the owner again later.
            known = job.replay.selection.endpoint_seq in self._cache.endpoints
            job.next_at = math.inf if known else now + CHECK_MS
            return
        try:
            endpoint = self._cache.endpoints.get(job.replay.selection.endpoint_seq)
            if endpoint is None and job.replay.state is not ReplayState.CANCELLED:
                await self._cancel(job)
            elif job.replay.state is ReplayState.RUNNING and endpoint is not None:
                await self._advance(job, endpoint, now)
            else:
                await self._settle_stopped(job, now)
        except Unavailable:
            job.next_at = now + UNAVAILABLE_WAIT_MS

    async def _cancel(self, job: _Job) -> None:
        """Cancel a replay whose endpoint is not in the cache, if the endpoint was deleted.

        If the database still contains the endpoint, the cache is out of date. In that case, check again later.
        """
        now, replay = self._clock.now_ms(), job.replay

        def cancel(connection: Transaction) -> Replay | None:
            if endpoints.exists(connection, replay.selection.endpoint_seq):
                return None
            cancelled = replays.change_state(connection, None, replay.id, ReplayState.CANCELLED, now=now)
            assert cancelled is not None, "unfinished replays are stored"
            subject, details = prefixed(REPLAY, replay.id), {"because": "endpoint_deleted"}
            audit.add(connection, AuditEntry(replay.account_seq, now, SYSTEM, "replay.cancelled", subject, details))
            return cancelled[0]

        try:
            cancelled = await self._database.write(cancel)
            if cancelled is None:
                job.next_at = now + CHECK_MS
            else:
                self.put(cancelled)
        except Conflict:
            # The replay completed in the meantime.
            self._jobs.pop(replay.seq, None)

    async def _settle_stopped(self, job: _Job, now: int) -> None:
        """Restore the previous status of a paused replay's waiting deliveries, or finish a cancelled replay."""
        seq = job.replay.seq
        job.next_at = now + CHECK_MS
        if job.replay.state is ReplayState.PAUSED:
            leased = await self._database.write(lambda c: replays.return_unattempted(c, seq))
            if not leased and job.replay.state is ReplayState.PAUSED:
                job.next_at = math.inf
            return
        replay = await self._database.write(lambda c: replays.finish_cancelled(c, seq, now=now))
        if replay.completed_at is not None:
            self._jobs.pop(seq, None)

    async def _advance(self, job: _Job, endpoint: LiveEndpoint, now: int) -> None:
        """Count the next batch of a replay's deliveries or, if all are counted, release the deliveries that are due."""
        if not job.replay.is_counted:
            await self._count(job, now)
            return
        lane = self._lanes.of(endpoint)
        due = job.rate.available(now)
        limit = min(due, self._lanes.replay_room(lane, now)) if endpoint.takes_deliveries else 0
        if limit or job.exhausted:
            await self._release(job, endpoint, lane, limit)
        elif due:
            wait_ms = FULL_WAIT_MS if endpoint.takes_deliveries else CHECK_MS
            job.next_at = max(now + wait_ms, lane.breaker.probe_at or 0)
        else:
            job.next_at = job.rate.next_ms

    async def _count(self, job: _Job, now: int) -> None:
        replay = job.replay
        first = replay.counted_through + 1
        counted = await self._database.read(
            lambda c: releases.count(c, replay.selection, first=first, last=replay.last_event_seq, rows=COUNT_ROWS)
        )
        saved = await self._database.write(lambda c: releases.save_count(c, replay.seq, counted, first=first, now=now))
        self._update(job, saved)
        job.next_at = now + COUNT_PAUSE_MS

    async def _release(self, job: _Job, endpoint: LiveEndpoint, lane: Lane[LeasedDelivery], limit: int) -> None:
        """Release up to `limit` deliveries. If `limit` is 0, only check whether the job is complete."""
        if len(job.ahead.candidates) < limit and job.ahead.through < job.replay.last_event_seq:
            await self._read_ahead(job, endpoint)
        now, replay = self._clock.now_ms(), job.replay
        # Allow as many unsettled deliveries as the replay releases in two intervals, or twice the endpoint's
        # concurrency limit if that is more, but at most REPLAY_OUTSTANDING_MAX.
        rate_max = 2 * replay.rate_per_second * RELEASE_EVERY_MS // 1000
        outstanding_max = min(max(2 * lane.in_flight_max, rate_max), REPLAY_OUTSTANDING_MAX)
        own, until = self._shards.process_id, now + self._lease_ms
        oldest = now - self._missing_age_ms_max if self._missing_age_ms_max else 0
        ordering = endpoint.record.settings.ordering
        lease = ReplayLease(now, until, own, limit, outstanding_max, LEASE_BATCH_BODY_BYTES_MAX, oldest, ordering)
        released = await self._database.release_replay(replay.seq, replay.selection, job.ahead, lease)
        count = len(released.leased) + released.ordered
        job.rate = job.rate.after_release(now, count)
        updated = replace(job.replay, state=released.state, next_event_seq=released.next_event_seq, updated_at=now)
        self._update(job, updated)
        job.ahead = job.ahead.after(released.next_event_seq - 1)
        wait_ms = RELEASE_EVERY_MS
        if not count:
            # If the filter rejected all events that were read, read the next events after a short pause.
            wait_ms = CHECK_MS if job.ahead.candidates or job.exhausted else COUNT_PAUSE_MS
        job.next_at = max(job.rate.next_ms, now + wait_ms)
        self._hand_over(job, released.leased)
        if released.ordered:
            self._due.note_due(replay.selection.endpoint_seq)
        if released.state is ReplayState.COMPLETED:
            self._jobs.pop(replay.seq, None)

    async def _read_ahead(self, job: _Job, endpoint: LiveEndpoint) -> None:
        replay = job.replay
        first = max(job.ahead.through + 1, replay.next_event_seq)
        limit = max(AHEAD_MIN, replay.rate_per_second * AHEAD_MS // 1000)
        pattern = None if replay.selection.missing is None else endpoint.filter
        if pattern is not None:
            limit = max(limit, FILTERED_AHEAD)
        more = await self._database.read_replay_batch(
            replay, first=first, rows=AHEAD_ROWS, limit=limit, body_bytes_max=AHEAD_BODY_BYTES_MAX
        )
        if pattern is not None:
            more = self._accepted(more, first, pattern)
        job.ahead = ReplayBatch([*job.ahead.candidates, *more.candidates], more.through)

    def _accepted(self, batch: ReplayBatch, first: int, pattern: Filter) -> ReplayBatch:
        """Return the events of the batch that match the filter or already have a delivery.

        `first` is the sequence number at which the batch begins. The evaluation of filters may take only a limited
        number of steps. If this limit is reached, the result ends at the last checked event.
        """
        found: list[Candidate] = []
        through = first - 1
        for each in batch.candidates:
            if self._filter_steps <= 0:
                return ReplayBatch(found, through)
            through = each.delivery.event_seq
            if each.completed_at is not None:
                found.append(each)
                continue
            evaluation = FilterEvaluation(data_of(each.delivery.body))
            if evaluation.mismatch(pattern) is None:
                found.append(each)
            self._filter_steps -= evaluation.steps_taken
            self._counters.filter_budget_exceeded += evaluation.exceeded
        return ReplayBatch(found, batch.through)

    def _update(self, job: _Job, replay: Replay) -> None:
        """Set a job's replay to the result of a write. Keep the job's replay if it is newer or no longer running."""
        if replay.updated_at >= job.replay.updated_at and job.replay.state is ReplayState.RUNNING:
            job.replay = replay

    def _hand_over(self, job: _Job, leased: Sequence[LeasedDelivery]) -> None:
        now = self._clock.now_ms()
        endpoint = self._cache.endpoints.get(job.replay.selection.endpoint_seq)
        if endpoint is None or self._lanes.draining:
            for delivery in leased:
                self._release_lease(delivery)
        elif not self.runs(job.replay.seq):
            for delivery in leased:
                self._return(delivery, now)
        else:
            self._lanes.spread(self._lanes.of(endpoint), leased, RELEASE_EVERY_MS)

    def _return(self, delivery: LeasedDelivery, now: int) -> None:
        """Restore the status that a delivery had before the replay, without counting an attempt."""
        before = previous_state(delivery)
        assert before is not None, "a replayed delivery has a previous status"
        self._settler.add(unattempted(delivery, before, now))


def _next_at(job: _Job) -> float:
    return job.next_at
