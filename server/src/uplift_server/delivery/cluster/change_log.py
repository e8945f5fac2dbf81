"""Removes the notes of changes that every process has seen long ago: who has not seen them learns that it has not."""

import asyncio
from collections import deque
from typing import Final

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.delivery.ports import Clock, SingletonJobs
from uplift_server.store import change_log
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable

KEPT_MS: Final = 3_600_000
"""How long notes are kept. Processes look twice a second; to who could not for so long they would be of little use."""
LOOK_EVERY_MS: Final = 60_000
BITE: Final = 200
BITE_PAUSE_MS: Final = 20


class ChangeLogCleanup:
    """Runs until stopped, in one process at a time."""

    def __init__(self, database: Database, jobs: SingletonJobs, clock: Clock) -> None:
        self._database = database
        self._jobs = jobs
        self._clock = clock
        self._noted: deque[tuple[int, int]] = deque()
        """Instants (Unix ms), each with the transaction below whose number all were over then."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Forget until stopped; whoever stops it cancels the wait."""
        while not stopping.is_set():
            await self._clock.wait(stopping, LOOK_EVERY_MS)
            if not self._jobs.holds(SingletonJob.RETENTION):
                self._noted.clear()
                continue
            try:
                await self._look(stopping)
            except Unavailable:
                continue

    async def _look(self, stopping: asyncio.Event) -> None:
        now = self._clock.now_ms()
        self._noted.append((now, await self._database.read(change_log.oldest_active_xid)))
        old = 0
        while now - self._noted[0][0] >= KEPT_MS:
            _, old = self._noted.popleft()
        while old and self._jobs.holds(SingletonJob.RETENTION) and not stopping.is_set():
            removed = await self._database.write(lambda c: change_log.prune(c, old, limit=BITE))
            if removed < BITE:
                return
            await self._clock.wait(stopping, BITE_PAUSE_MS)
