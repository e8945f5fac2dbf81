"""Cached metrics from the database, so that metrics requests do not wait for large counts."""

import asyncio
from dataclasses import dataclass
from typing import Final

from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.observe.snapshot import DatabaseReading
from uplift_server.service.context import ServiceContext
from uplift_server.service.readiness import Readiness
from uplift_server.store import database_state
from uplift_server.store.errors import StoreError

COUNTED_MAX: Final = 100_000
"""Maximum of each count. With a million deliveries of 2,000 endpoints in SQLite, all counts took 60 ms."""
DUE_ENDPOINTS_PER_READ: Final = 1_000
FRESH_MS: Final = 2_000
"""The minimum interval between readings."""
REST_PER_READING: Final = 20
"""The pause after a reading, as a multiple of its duration, which bounds the load of readings."""
STALLED_MS: Final = 10_000
"""Time limit of a reading. After it, the database counts as not responding."""
STALE_MS: Final = 60_000
"""The maximum age of a reading that is reported."""
WAIT_SECONDS: Final = 0.02
"""How long a request waits for a new reading before it uses the last one."""
FIRST_WAIT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """Values from the database, and when the next reading may start (Unix ms)."""

    stored: DatabaseReading
    next_at: int


class MetricsCache:
    """Reads on request, one reading at a time."""

    def __init__(self, context: ServiceContext, readiness: Readiness) -> None:
        self._context = context
        self._readiness = readiness
        self._last: _Reading | None = None
        self._done: asyncio.Event | None = None
        """Set at the end of the current reading."""
        self._began_at = 0
        self._last_succeeded = True

    @property
    def is_responding(self) -> bool:
        """Whether the last reading succeeded, and the current one has not stalled."""
        return self._last_succeeded and (self._done is None or self._context.now() - self._began_at < STALLED_MS)

    async def latest(self) -> DatabaseReading | None:
        """Return the newest reading, after a short wait for one in progress. None if it is older than STALE_MS."""
        if self._done is None and (self._last is None or self._context.now() >= self._last.next_at):
            self._done = asyncio.Event()
            self._context.run_in_background(self._read(self._done))
        if self._done is not None:
            try:
                async with asyncio.timeout(FIRST_WAIT_SECONDS if self._last is None else WAIT_SECONDS):
                    await self._done.wait()
            except TimeoutError:
                pass
        last = self._last
        return None if last is None or self._context.now() - last.stored.read_at > STALE_MS else last.stored

    async def _read(self, done: asyncio.Event) -> None:
        began = self._began_at = self._context.now()
        try:
            await self._readiness.probe()
            found = await self._context.database.read(lambda c: database_state.read(c, now=began, limit=COUNTED_MAX))
            oldest = await self._oldest_due(began)
            ended = self._context.now()
            backlog = found.backlog
            self._last = _Reading(
                DatabaseReading(
                    read_at=began,
                    waiting={"due": backlog.due, "later": backlog.later, "leased": found.leased, "held": backlog.held},
                    pending=None if found.totals is None else sum(each.pending for each in found.totals.values()),
                    oldest_due_at=oldest,
                    emails_waiting=found.mails,
                    oldest_email_at=found.oldest_mail_at,
                    replays={state.text: count for state, count in found.replays.items()},
                    oldest_event_at=found.oldest_event_at,
                ),
                next_at=ended + max(FRESH_MS, (ended - began) * REST_PER_READING),
            )
            self._last_succeeded = True
        except StoreError:
            self._last_succeeded = False
        finally:
            self._done = None
            done.set()

    async def _oldest_due(self, now: int) -> dict[str, int | None]:
        """Return the due time of the oldest due delivery of enabled endpoints, by the cause of its delay.

        Each process reports the endpoints that it owns, or all endpoints if no process sends deliveries.
        """
        context = self._context
        no_process_sends = not context.engine.status.sends()
        oldest: dict[str, int | None] = dict.fromkeys(HeldUpBy)
        after = 0
        while True:
            found = await context.database.due_endpoints(after=after, limit=DUE_ENDPOINTS_PER_READ)
            for endpoint_seq, due_at in found:
                endpoint = context.cache.endpoints.get(endpoint_seq)
                if endpoint is None or not (no_process_sends or context.engine.status.owns(endpoint_seq)):
                    continue
                if due_at <= now and endpoint.takes_deliveries:
                    cause = context.engine.status.held_up_by(endpoint_seq)
                    oldest[cause] = min(due_at, oldest[cause] or due_at)
            if len(found) < DUE_ENDPOINTS_PER_READ:
                return oldest
            after = found[-1].endpoint_seq
