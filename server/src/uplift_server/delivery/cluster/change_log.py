"""Cleanup of the change log.

If the cleanup deletes changes before a process has read them, the process reloads its cache.
"""

import asyncio
from collections import deque
from typing import Final

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.delivery.ports import Clock, SingletonJobs
from uplift_server.store import change_log
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable

RETENTION_MS: Final = 3_600_000
"""How long the change log keeps changes, in ms. Processes read the change log twice a second."""
CLEANUP_EVERY_MS: Final = 60_000
BATCH_ROWS: Final = 200
BATCH_PAUSE_MS: Final = 20


class ChangeLogCleanup:
    """Deletes old changes. Only one process at a time runs this job."""

    def __init__(self, database: Database, jobs: SingletonJobs, clock: Clock) -> None:
        self._database = database
        self._jobs = jobs
        self._clock = clock
        self._oldest_active: deque[tuple[int, int]] = deque()
        """Pairs of a past time (Unix ms) and the number of the oldest transaction that was active at that time."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Delete old changes until the process stops or the task is cancelled."""
        while not stopping.is_set():
            await self._clock.wait(stopping, CLEANUP_EVERY_MS)
            if not self._jobs.holds(SingletonJob.RETENTION):
                self._oldest_active.clear()
                continue
            try:
                await self._prune(stopping)
            except Unavailable:
                continue

    async def _prune(self, stopping: asyncio.Event) -> None:
        now = self._clock.now_ms()
        self._oldest_active.append((now, await self._database.read(change_log.oldest_active_xid)))
        old = 0
        while now - self._oldest_active[0][0] >= RETENTION_MS:
            _, old = self._oldest_active.popleft()
        while old and self._jobs.holds(SingletonJob.RETENTION) and not stopping.is_set():
            removed = await self._database.write(lambda c: change_log.prune(c, old, limit=BATCH_ROWS))
            if removed < BATCH_ROWS:
                return
            await self._clock.wait(stopping, BATCH_PAUSE_MS)
