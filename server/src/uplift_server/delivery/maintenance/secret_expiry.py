"""Secret expiry: erases an old secret from the store at the end of its overlap with the current secret.

Attempts do not depend on this job, because each attempt checks `RequestParts.signer_until`.
"""

import asyncio
from typing import Final

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.health.endpoint_changes import EndpointChanges
from uplift_server.delivery.ports import NEVER, Clock, SingletonJobs
from uplift_server.store.contract import Database
from uplift_server.store.endpoints import erase_previous_secrets
from uplift_server.store.errors import Unavailable

BATCH_ENDPOINTS: Final = 300
UNAVAILABLE_WAIT_MS: Final = 5_000
OTHER_HOLDER_WAIT_MS: Final = 5_000
_WAIT_MS_MAX: Final = 24 * 3600 * 1000


class SecretExpiry:
    """Waits until the next overlap of two secrets ends, and then erases the old secret."""

    def __init__(
        self, database: Database, cache: EndpointCache, changes: EndpointChanges, jobs: SingletonJobs, clock: Clock
    ) -> None:
        self._database = database
        self._cache = cache
        self._changes = changes
        self._jobs = jobs
        self._clock = clock

    async def run(self, stopping: asyncio.Event) -> None:
        """Erase old secrets until the process stops or the task is cancelled."""
        while not stopping.is_set():
            self._cache.overlap_added.clear()
            next_end = min(self._cache.overlaps.values(), default=NEVER)
            left_ms = next_end - self._clock.now_ms()
            if left_ms > 0:
                await self._clock.wait(self._cache.overlap_added, min(left_ms, _WAIT_MS_MAX))
                continue
            if not self._jobs.holds(SingletonJob.SECRET_EXPIRY):
                await self._clock.wait(stopping, OTHER_HOLDER_WAIT_MS)
                continue
            try:
                await self._erase()
            except Unavailable:
                await self._clock.wait(stopping, UNAVAILABLE_WAIT_MS)

    async def _erase(self) -> None:
        now = self._clock.now_ms()
        overlaps = self._cache.overlaps
        ended = [seq for seq, ends_at in overlaps.items() if ends_at <= now][:BATCH_ENDPOINTS]
        changed = await self._database.write(lambda c: erase_previous_secrets(c, ended, now=now))
        for record in changed:
            if record.seq in self._cache.endpoints:
                self._changes.apply(record)
        # Do not retry endpoints whose secrets have changed in the database. Cache sync updates them in the cache.
        for seq in ended:
            if overlaps.get(seq, NEVER) <= now:
                del overlaps[seq]
