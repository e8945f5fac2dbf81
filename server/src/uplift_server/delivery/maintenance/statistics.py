"""StatisticsUpdater: counts what was added to the tables, a second or so after it was written, beside traffic."""

import asyncio
from typing import Final

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.delivery.ports import Clock, SingletonJobs
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.statistics import count, save

BITE_ROWS: Final = 30_000
"""How many deliveries, and attempts, are read at a time: on a reader, for some 100 ms."""
BITE_NOTES: Final = 2_000
"""How many notes of changed statuses: they are deleted by the one writer, which traffic waits for."""
BITE_PAUSE_MS: Final = 20
BUSY_CORES: Final = 0.5
"""From which use of a processor core on the process is busy: then it is counted a few times less often."""
BUSY_TURNS: Final = 4
UNAVAILABLE_WAIT_MS: Final = 5_000


class StatisticsUpdater:
    """Looks every `every_ms` for what is still to be counted; `BUSY_TURNS` times less often while the process is busy.

    Whoever reads numbers need not wait for it; what it has not come to yet is missing in them for so long.
    """

    def __init__(self, database: Database, jobs: SingletonJobs, clock: Clock, *, every_ms: int) -> None:
        self._database = database
        self._jobs = jobs
        self._clock = clock
        self._every_ms = every_ms
        self._load = (clock.now_ms(), clock.processor_s())

    async def run(self, stopping: asyncio.Event) -> None:
        """Count until stopped."""
        rested = 0
        while not stopping.is_set():
            await self._clock.wait(stopping, self._every_ms)
            rested += 1
            if not self._jobs.holds(SingletonJob.STATISTICS) or (self._is_busy() and rested < BUSY_TURNS):
                continue
            rested = 0
            try:
                await self.count_all(stopping)
            except Unavailable:
                await self._clock.wait(stopping, UNAVAILABLE_WAIT_MS)

    async def count_all(self, stopping: asyncio.Event) -> None:
        """Count all there is, bite by bite. Raises Unavailable; what was counted by then stays so."""
        more = True
        while more and not stopping.is_set():
            stream_position = await self._database.stream_position()
            found = await self._database.read(lambda c: count(c, stream_position, rows=BITE_ROWS, changes=BITE_NOTES))  # noqa: B023
            if found is None:
                return
            await self._database.write(lambda c: save(c, found))  # noqa: B023 - run before the next turn
            more = found.more
            if more:
                await self._clock.wait(stopping, BITE_PAUSE_MS)

    def _is_busy(self) -> bool:
        """Whether the process used so much of a processor since this was last asked."""
        at, used_s = self._load
        self._load = now, uses_s = self._clock.now_ms(), self._clock.processor_s()
        return (uses_s - used_s) * 1000 >= BUSY_CORES * (now - at) > 0
