"""What metrics need of the database, read now and then: whoever asks for metrics does not wait for large counts."""

import asyncio
from dataclasses import dataclass
from typing import Final

from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.observe.snapshot import DatabaseReading
from uplift_server.service.context import ServiceContext
from uplift_server.service.readiness import Readiness
from uplift_server.store import standing
from uplift_server.store.errors import StoreError

COUNTED_MAX: Final = 100_000
"""How many deliveries of each kind are counted: with a million of 2,000 endpoints in SQLite that took 60 ms."""
DUE_ENDPOINTS: Final = 1_000
"""So many endpoints with something due are read at a time."""
FRESH_MS: Final = 2_000
"""How old a reading may be before there is another one."""
REST_PER_READING: Final = 20
"""How many times as long as a reading took there is none after it: however much waits, they cost little."""
STALLED_MS: Final = 10_000
"""Time limit of a reading. Beyond it, the database counts as not responding."""
STALE_MS: Final = 60_000
"""How old a reading may be and still be told."""
WAIT_SECONDS: Final = 0.02
"""How long a request for metrics waits for the reading it began, before it is answered with the last one."""
FIRST_WAIT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read, and when the next one may begin (Unix ms)."""

    stored: DatabaseReading
    next_at: int


class MetricsCache:
    """Reads when somebody asks, one at a time."""

    def __init__(self, context: ServiceContext, readiness: Readiness) -> None:
        self._context = context
        self._readiness = readiness
        self._last: _Reading | None = None
        self._done: asyncio.Event | None = None
        """Set at the end of the reading that goes on."""
        self._began_at = 0
        self._answered = True

    @property
    def answers(self) -> bool:
        """Whether the last reading succeeded, and the current one has not stalled."""
        return self._answered and (self._done is None or self._context.now() - self._began_at < STALLED_MS)

    async def latest(self) -> DatabaseReading | None:
        """What was read last, now if that is soon done; None where the database has not answered lately."""
        if self._done is None and (self._last is None or self._context.now() >= self._last.next_at):
            self._done = asyncio.Event()
            self._context.carry_on(self._read(self._done))
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
            found = await self._context.database.read(lambda c: standing.read(c, now=began, limit=COUNTED_MAX))
            oldest = await self._oldest_due(began)
            ended = self._context.now()
            waiting = found.backlog
            self._last = _Reading(
                DatabaseReading(
                    read_at=began,
                    waiting={"due": waiting.due, "later": waiting.later, "leased": found.leased, "held": waiting.held},
                    pending=found.pending,
                    oldest_due_at=oldest,
                    emails_waiting=found.mails,
                    oldest_email_at=found.oldest_mail_at,
                    replays={state.text: count for state, count in found.replays.items()},
                    oldest_event_at=found.oldest_event_at,
                ),
                next_at=ended + max(FRESH_MS, (ended - began) * REST_PER_READING),
            )
            self._answered = True
        except StoreError:
            self._answered = False
        finally:
            self._done = None
            done.set()

    async def _oldest_due(self, now: int) -> dict[str, int | None]:
        """Since when something is due for an endpoint that is on, by what holds it up.

        Each process tells of its own endpoints, and of all of them where nobody sends.
        """
        context = self._context
        nobody_sends = not context.engine.status.sends()
        oldest: dict[str, int | None] = dict.fromkeys(HeldUpBy)
        after = 0
        while True:
            found = await context.database.due_endpoints(after=after, limit=DUE_ENDPOINTS)
            for endpoint_seq, due_at in found:
                endpoint = context.cache.endpoints.get(endpoint_seq)
                if endpoint is None or not (nobody_sends or context.engine.status.owns(endpoint_seq)):
                    continue
                if due_at <= now and endpoint.takes_deliveries:
                    why = context.engine.status.held_up_by(endpoint_seq)
                    oldest[why] = min(due_at, oldest[why] or due_at)
            if len(found) < DUE_ENDPOINTS:
                return oldest
            after = found[-1].endpoint_seq
