"""Server readiness: whether the server can read and write its database, or use its event stream."""

import asyncio
import time
from typing import Final, NamedTuple

from uplift_server.service.context import ServiceContext
from uplift_server.service.errors import NotReady
from uplift_server.store import database_identity, event_types, server_values
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import StoreError, Unavailable

PROBE_AFTER_S: Final = 5.0
"""The maximum age of a successful write, in seconds, that proves readiness without a probe."""
PROBE_EVERY_S: Final = 1.0
PROBE_WAIT_S: Final = 2.5
"""The maximum time that a request waits for the probe, in seconds.

This time exceeds the 2 s that a SQLite connection waits for a lock that another program holds.
"""
DATABASE_BEHIND_STREAM_S: Final = 0.5
"""The maximum time, in seconds, that a request waits for the database while the event stream can accept events."""
_MARK: Final = "readiness.probed_at"


class Ready(NamedTuple):
    """The state of a server that can accept events."""

    database_id: str | None
    """The ID of the database. None while the server cannot use the database."""
    database_problem: str | None = None
    """Why the server cannot use the database behind the event stream. None if the server can use it."""


def _read(connection: Transaction) -> str:
    """Return the ID of the database. Also read the event types, to check that the tables are readable."""
    event_types.get(connection, "")
    return database_identity.get(connection) or ""


class Readiness:
    """Determines readiness from the results of regular writes. If there was no recent write, writes one small row."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._probed_at = float("-inf")
        self._probing: asyncio.Event | None = None
        """A signal that is set when the current probe ends. None if no probe is running."""
        self._probe_error: str | None = None

    async def check(self) -> Ready:
        """Return the state of the server. Raises NotReady if the server cannot accept events.

        Without an event stream, raises the store's Unavailable if a read from the database fails.
        """
        stream = self._context.stream
        if stream is None or not self._context.accepts_through_stream:
            return Ready(await self._check_database())
        trouble = stream.trouble()
        if trouble is not None:
            raise NotReady(f"The event stream is unavailable: {trouble}. Check the NATS servers.")
        try:
            async with asyncio.timeout(DATABASE_BEHIND_STREAM_S):
                return Ready(await self._check_database())
        except NotReady as error:
            return Ready(None, error.detail)
        except (Unavailable, TimeoutError):
            return Ready(None, "The database does not respond. Check the connection and the database.")

    async def _check_database(self) -> str:
        """Return the ID of the database. Raises NotReady, or the store's Unavailable if a read fails."""
        heartbeat_age_ms = self._context.engine.status.heartbeat_age_ms()
        if heartbeat_age_ms is not None:
            raise NotReady(
                f"The last heartbeat of this process is {heartbeat_age_ms // 1000} s old. Check the connection of this"
                " process to the database. The process rejoins automatically."
            )
        await self.probe()
        self._raise_if_failing()
        try:
            return await self._context.database.read(_read)
        except Unavailable:
            self._raise_if_failing()
            raise

    def failure_cause(self) -> str | None:
        """Return the known cause of failed reads or writes, without a new probe. Return None if no cause is known."""
        return self._context.database.health.trouble() or self._probe_error

    async def probe(self) -> None:
        """Write one small row, unless a recent write succeeded.

        All callers together cause at most one write every PROBE_EVERY_S seconds.
        """
        if self._context.database.health.has_written_within(PROBE_AFTER_S):
            self._probe_error = None
            return
        if self._probing is None and time.monotonic() - self._probed_at >= PROBE_EVERY_S:
            self._probing = asyncio.Event()
            self._context.run_in_background(self._write(self._probing))
        if self._probing is not None:
            try:
                async with asyncio.timeout(PROBE_WAIT_S):
                    await self._probing.wait()
            except TimeoutError:
                self._probe_error = "A write to the database did not finish in time. Check the database's disk."

    def _raise_if_failing(self) -> None:
        cause = self.failure_cause()
        if cause is not None:
            raise NotReady(cause)

    async def _write(self, done: asyncio.Event) -> None:
        try:
            now = self._context.now()
            await self._context.database.write(lambda c: server_values.replace(c, _MARK, {_MARK: now}))
            self._probe_error = None
        except StoreError:
            self._probe_error = "The database rejects writes. See the server's log for the cause."
        finally:
            self._probed_at = time.monotonic()
            self._probing = None
            done.set()
