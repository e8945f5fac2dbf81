"""The statistics updater: counts new deliveries and attempts about one second after their commit.

While the process is busy, the updater counts only every ten seconds, because each count delays deliveries. The delay
depends mostly on the number of endpoints, not on the number of new rows.
"""

import asyncio
from typing import Final

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.delivery.ports import Clock, SingletonJobs
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.statistics import count, save

BATCH_ROWS: Final = 30_000
"""The maximum number of deliveries per read, and of attempts per read. A read takes about 100 ms."""
BATCH_CHANGES: Final = 2_000
"""The maximum number of rows of `delivery_changes` per batch.

Other writes must wait while the server deletes the counted rows.
"""
BATCH_PAUSE_MS: Final = 20
ROWS_PER_TURN: Final = 64
"""The number of statistics rows to encode in one iteration of the event loop. The encoding takes about 1 ms."""
BUSY_CORES: Final = 0.5
"""A process that uses this many CPU cores or more is busy.

A busy process counts new deliveries and attempts only once every BUSY_TURNS intervals.
"""
BUSY_TURNS: Final = 10
UNAVAILABLE_WAIT_MS: Final = 5_000


class StatisticsUpdater:
    """Counts new deliveries and attempts at intervals of `every_ms`, or less often while the process is busy.

    The statistics include a new delivery or attempt after the next count.
    """

    def __init__(self, database: Database, jobs: SingletonJobs, clock: Clock, *, every_ms: int) -> None:
        self._database = database
        self._jobs = jobs
        self._clock = clock
        self._every_ms = every_ms
        self._load = (clock.now_ms(), clock.processor_s())

    async def run(self, stopping: asyncio.Event) -> None:
        """Count new deliveries and attempts until the process stops."""
        intervals = 0
        while not stopping.is_set():
            await self._clock.wait(stopping, self._every_ms)
            intervals += 1
            if not self._jobs.holds(SingletonJob.STATISTICS) or (self._is_busy() and intervals < BUSY_TURNS):
                continue
            intervals = 0
            try:
                await self.count_all(stopping)
            except Unavailable:
                await self._clock.wait(stopping, UNAVAILABLE_WAIT_MS)

    async def count_all(self, stopping: asyncio.Event) -> None:
        """Count all new deliveries and attempts in batches.

        If the method raises Unavailable, the counts of the earlier batches are already stored.
        """
        more = True
        while more and not stopping.is_set():
            position, now = await self._database.stream_position(), self._clock.now_ms()
            found = await self._database.read(
                lambda c: count(c, position, now=now, rows=BATCH_ROWS, changes=BATCH_CHANGES)  # noqa: B023
            )
            if found is None:
                return
            while found.encode(ROWS_PER_TURN):  # noqa: ASYNC110 - other tasks run between two turns
                await asyncio.sleep(0)
            await self._database.write(lambda c: save(c, found))  # noqa: B023 - run before the next turn
            more = found.more
            if more:
                await self._clock.wait(stopping, BATCH_PAUSE_MS)

    def _is_busy(self) -> bool:
        """Return whether the process has used at least BUSY_CORES CPU cores on average since the last call."""
        at, used_s = self._load
        self._load = now, uses_s = self._clock.now_ms(), self._clock.processor_s()
        return (uses_s - used_s) * 1000 >= BUSY_CORES * (now - at) > 0
