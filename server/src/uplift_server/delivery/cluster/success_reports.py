"""Reports successful attempts to the current owners of the endpoints, through the database."""

import asyncio
from typing import Final

import structlog

from uplift_server.delivery.ports import Clock
from uplift_server.store import health
from uplift_server.store.contract import Database, Transaction
from uplift_server.store.errors import Rejected, Unavailable

UNAVAILABLE_WAIT_MS: Final = 500
IDLE_MS: Final = 3_600_000
_log = structlog.get_logger()


class SuccessReports:
    """Writes reports of successful attempts in the background. If a report is lost, the endpoint recovers later."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._successes: dict[int, int] = {}
        """The time of the latest success (Unix ms) for each endpoint."""
        self._wake = asyncio.Event()

    def add(self, endpoint_seq: int, at: int) -> None:
        """Report that an attempt to a failing endpoint succeeded at `at` (Unix ms)."""
        self._successes[endpoint_seq] = at
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Write reports until the process stops."""
        while not stopping.is_set():
            await self._clock.wait(self._wake, IDLE_MS)
            self._wake.clear()
            while self._successes and not stopping.is_set():
                try:
                    await self.write()
                except Unavailable:
                    await self._clock.wait(stopping, UNAVAILABLE_WAIT_MS)
                except Rejected as error:
                    _log.error("endpoint successes not stored", count=len(self._successes), cause=str(error))
                    self._successes.clear()

    async def write(self) -> None:
        """Write all reports. If the method raises Unavailable, the next call writes the reports again."""
        # Sort the endpoints, because settlements lock endpoints in this order.
        batch = sorted(self._successes.items())

        def write(connection: Transaction) -> None:
            for endpoint_seq, at in batch:
                health.record_success(connection, endpoint_seq, at)

        if batch:
            await self._database.write(write)
            self._successes = {seq: at for seq, at in self._successes.items() if (seq, at) not in batch}
