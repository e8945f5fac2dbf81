"""Erasure jobs: erase events in small batches, and continue after a restart.

An erasure is complete when no process can still have the erased content. By then, the leases of the deliveries have
ended, and the database has removed the previous content of changed rows.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from uplift_server.core.events import envelope
from uplift_server.core.ids import ERASURE, prefixed
from uplift_server.core.limits import ERASURES_UNFINISHED_PER_ACCOUNT_MAX
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.object_ids import object_id_of
from uplift_server.delivery.ports import Clock, Shards, SingletonJobs
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.store import erased_content, erasures
from uplift_server.store.contract import Database
from uplift_server.store.erasures import Erasure
from uplift_server.store.errors import Unavailable

READ_EVERY_MS: Final = 1_000
"""The interval between reads of unfinished erasures in a cluster, in ms. Other processes can create erasures."""
IDLE_MS: Final = 3_600_000
"""The longest wait for a new erasure outside a cluster, in ms. A wake-up ends the wait when an erasure is created."""
BATCH_PAUSE_MS: Final = 20
CHECK_MS: Final = 250
"""The interval in ms between checks of an erasure that waits for a lease or a database read to end."""
UNAVAILABLE_WAIT_MS: Final = 500
DEFECT_WAIT_MS: Final = 60_000
ERASURES_PER_ROUND: Final = ERASURES_UNFINISHED_PER_ACCOUNT_MAX
_log = structlog.get_logger()


class ErasedEvents:
    """Removes erased events from the memory of this process."""

    def __init__(self, cache: EndpointCache, lanes: DeliveryLanes) -> None:
        self._cache = cache
        self._lanes = lanes

    def forget(self, event_seqs: Sequence[int], endpoint_seqs: Sequence[int]) -> None:
        """Drop the deliveries of erased events, and clear the last errors of the given endpoints.

        A last error can quote a response to an erased event.
        """
        self._lanes.forget(event_seqs)
        for seq in endpoint_seqs:
            endpoint = self._cache.endpoints.get(seq)
            if endpoint is not None:
                endpoint.health = endpoint.health._replace(last_error=None, last_location=None)


class ErasureJobs:
    """Erases the events of all unfinished erasures."""

    def __init__(
        self,
        database: Database,
        erased_events: ErasedEvents,
        shards: Shards,
        jobs: SingletonJobs,
        clock: Clock,
    ) -> None:
        self._database = database
        self._erased_events = erased_events
        self._shards = shards
        self._jobs = jobs
        self._clock = clock
        self._wake = asyncio.Event()
        self._completing: asyncio.Task[None] | None = None
        self._paused_until: dict[int, int] = {}
        """The erasures whose last step failed because of a defect, each with the end of its pause (Unix ms)."""

    def wake(self) -> None:
        """Start new erasures now, if this process holds the singleton job for erasures."""
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Erase events until the process stops or the task is cancelled."""
        try:
            while not stopping.is_set():
                self._wake.clear()
                wait_ms = self._idle_ms
                if self._jobs.holds(SingletonJob.ERASURE):
                    try:
                        wait_ms = await self._round()
                    except Unavailable:
                        wait_ms = UNAVAILABLE_WAIT_MS
                    except Exception:
                        # A defect must not stop deliveries.
                        _log.exception("erasure failed")
                        wait_ms = DEFECT_WAIT_MS
                await self._clock.wait(self._wake, wait_ms)
        finally:
            if self._completing is not None:
                self._completing.cancel()
                await asyncio.gather(self._completing, return_exceptions=True)

    @property
    def _idle_ms(self) -> int:
        return READ_EVERY_MS if self._shards.membership_id else IDLE_MS

    async def _round(self) -> int:
        """Run the next step of every erasure. Return the wait before the next steps, in ms."""
        if self._completing is not None and self._completing.done():
            completing, self._completing = self._completing, None
            completing.result()
        found = await self._database.read(lambda c: erasures.unfinished(c, limit=ERASURES_PER_ROUND))
        if not found:
            return self._idle_ms
        advanced = [await self._try_to_advance(each) for each in found]
        ready = [
            each
            for each in found
            if not each.has_events_left and each.tidied_at is not None and each.seq not in self._paused_until
        ]
        if ready and self._completing is None:
            # Do not wait: on PostgreSQL, this can take hours, and other erasures must begin.
            self._completing = asyncio.create_task(self._complete(ready), name="complete erasures")
        return BATCH_PAUSE_MS if any(advanced) else CHECK_MS

    async def _try_to_advance(self, erasure: Erasure) -> bool:
        """Run the next step of an erasure. After a defect, pause only this erasure. Raises Unavailable."""
        now = self._clock.now_ms()
        if now < self._paused_until.get(erasure.seq, now):
            return False
        self._paused_until.pop(erasure.seq, None)
        try:
            return await self._advance(erasure)
        except Unavailable:
            raise
        except Exception:
            self._pause(erasure)
            return False

    def _pause(self, erasure: Erasure) -> None:
        """Log the exception being handled, a defect, and pause the erasure."""
        _log.exception("erasure failed", erasure=prefixed(ERASURE, erasure.id))
        self._paused_until[erasure.seq] = self._clock.now_ms() + DEFECT_WAIT_MS

    async def _advance(self, erasure: Erasure) -> bool:
        """Run the next step of an erasure. Return False if the erasure must wait, or if it has no more steps."""
        now = self._clock.now_ms()
        if erasure.has_events_left:
            await self._erase(erasure, now)
            return True
        if erasure.tidied_at is not None or (erasure.leases_until is not None and now <= erasure.leases_until):
            return False
        self._forget([], await self._database.write(lambda c: erased_content.tidy(c, erasure, now=now)))
        return True

    async def _complete(self, ready: Sequence[Erasure]) -> None:
        """Remove the dead rows of erasures without further steps once for all of them, and complete them."""
        if not await self._database.scrub():
            return
        for erasure in ready:
            now = self._clock.now_ms()
            try:
                done = await self._database.write(lambda c: erasures.complete(c, erasure, now=now))  # noqa: B023 - awaited
            except Unavailable:
                raise
            except Exception:
                self._pause(erasure)
            else:
                _log.info("erasure completed", erasure=prefixed(ERASURE, done.id), events=done.events)

    async def _erase(self, erasure: Erasure, now: int) -> None:
        step = await self._database.read(lambda c: erasures.next_step(c, erasure))
        chosen = [*step.event_seqs]
        if step.unchecked:
            chosen += await asyncio.to_thread(_matching, step.unchecked, erasure.object_id)
        erased = await self._database.write(
            lambda c: erased_content.erase(
                c, erasure, chosen, position=step.position, scanned_through=step.scanned_through, now=now
            )
        )
        self._forget(erased.leased, erased.endpoints)

    def _forget(self, event_seqs: Sequence[int], endpoint_seqs: Sequence[int]) -> None:
        if event_seqs or endpoint_seqs:
            self._erased_events.forget(event_seqs, endpoint_seqs)
            self._shards.announce_erased(event_seqs, endpoint_seqs)


def _matching(unchecked: Sequence[tuple[int, bytes]], object_id: str | None) -> list[int]:
    return [seq for seq, body in unchecked if object_id_of(envelope.data_of(body)) == object_id]
