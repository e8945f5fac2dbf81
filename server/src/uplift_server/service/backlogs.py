"""The backlog of each endpoint (pending, held and due deliveries), and the state of the database.

Metrics and pages about all accounts share one cached `Reading`, because counting many deliveries takes time. Pages
about one account read the backlogs of the account's endpoints directly.
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.observe.snapshot import DatabaseReading
from uplift_server.service.context import ServiceContext
from uplift_server.service.readiness import Readiness
from uplift_server.store import database_state, totals
from uplift_server.store.errors import StoreError, Unavailable
from uplift_server.store.totals import NO_OPEN, OpenCounts

COUNTED_MAX: Final = 100_000
"""The number at which each count stops.

With a million deliveries of 2,000 endpoints in SQLite, all counts took 60 ms.
"""
DUE_ENDPOINTS_PER_READ: Final = 1_000
FRESH_MS: Final = 2_000
"""The minimum time between two readings of the database, in ms."""
REST_PER_READING: Final = 20
"""The pause after a reading, as a multiple of the reading's duration. The pause limits the load on the database."""
STALLED_MS: Final = 10_000
"""The maximum duration of a reading, in ms. After this time, the database is reported as not responding."""
STALE_MS: Final = 150_000
"""The maximum age of a reading that `latest` returns, in ms."""
WAIT_SECONDS: Final = 1.0
"""How long, in seconds, a page or a request for metrics waits for a reading if no reading is recent."""
RECENT_MS: Final = 5_000
"""The maximum age, in ms, of a reading that is used without waiting for a newer reading."""


class EndpointBacklog(NamedTuple):
    """The numbers of pending and held deliveries of one or more endpoints, and the earliest due time."""

    pending: int | None
    """The number of pending deliveries. After an upgrade, None until the server has counted them."""
    held: int | None
    oldest_due_at: int | None
    """The earliest due time of the deliveries that are due and not leased (Unix ms). None if there are none."""


UNKNOWN: Final = EndpointBacklog(None, None, None)


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of the database at one time, and the backlogs of all endpoints in all accounts."""

    stored: DatabaseReading
    open: Mapping[int, OpenCounts] | None
    """The numbers of pending and held deliveries, by endpoint sequence number.

    After an upgrade, None until the server has counted the deliveries.
    """
    due: Mapping[int, int]
    """The earliest due time of each endpoint's due deliveries (Unix ms), by endpoint sequence number."""
    next_at: int
    """When the next reading may start (Unix ms)."""

    def of(self, endpoint_seq: int) -> EndpointBacklog:
        """Return the backlog of an endpoint."""
        return _backlog(self.open, endpoint_seq, self.due.get(endpoint_seq))

    def total(self, endpoint_seqs: Collection[int] | None = None) -> EndpointBacklog:
        """Return the combined backlog of these endpoints, or of all endpoints if `endpoint_seqs` is None."""
        seqs = {*self.due, *(self.open or ())}
        return total([self.of(seq) for seq in (seqs if endpoint_seqs is None else seqs.intersection(endpoint_seqs))])


def total(backlogs: Collection[EndpointBacklog]) -> EndpointBacklog:
    """Return the combined backlog: the sums of the counts, and the earliest due time."""
    pending = [each.pending for each in backlogs if each.pending is not None]
    held = [each.held for each in backlogs if each.held is not None]
    is_known = len(pending) == len(backlogs)
    oldest = [each.oldest_due_at for each in backlogs if each.oldest_due_at is not None]
    return EndpointBacklog(
        sum(pending) if is_known else None, sum(held) if is_known else None, min(oldest, default=None)
    )


def _backlog(found: Mapping[int, OpenCounts] | None, endpoint_seq: int, oldest_due_at: int | None) -> EndpointBacklog:
    if found is None:
        return EndpointBacklog(None, None, oldest_due_at)
    return EndpointBacklog(*found.get(endpoint_seq, NO_OPEN), oldest_due_at)


class Backlogs:
    """Reads backlogs when a page or a request for metrics needs them. Creates only one `Reading` at a time."""

    def __init__(self, context: ServiceContext, readiness: Readiness, *, sends_email: bool = True) -> None:
        self._context = context
        self._readiness = readiness
        self._sends_email = sends_email
        self._last: Reading | None = None
        self._done: asyncio.Event | None = None
        self._began_at = 0
        self._last_succeeded = True

    @property
    def is_responding(self) -> bool:
        """Whether the database responds: the last reading succeeded, and no reading in progress has stalled."""
        return self._last_succeeded and (self._done is None or self._context.now() - self._began_at < STALLED_MS)

    async def latest(self) -> Reading | None:
        """Start a reading if one is due, and return the last reading. If it is not recent, first wait for the new one.

        The wait takes up to WAIT_SECONDS. Return None if there is no reading, or if the newest one is older than
        STALE_MS.
        """
        if self._done is None and (self._last is None or self._context.now() >= self._last.next_at):
            self._done = asyncio.Event()
            self._context.run_in_background(self._read(self._done))
        last = self._last
        is_recent = last is not None and self._context.now() - last.stored.read_at <= RECENT_MS
        if self._done is not None and not is_recent:
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS):
                    await self._done.wait()
        last = self._last
        return None if last is None or self._context.now() - last.stored.read_at > STALE_MS else last

    async def of_endpoints(self, endpoint_seqs: Collection[int]) -> dict[int, EndpointBacklog]:
        """Return the current backlog of each endpoint. If the database does not respond, each backlog is UNKNOWN."""
        if not endpoint_seqs:
            return {}
        now, database = self._context.now(), self._context.database
        try:
            found = await database.read(lambda c: totals.read(c, endpoint_seqs))
            due = {each.endpoint_seq: each.due_at or now for each in await database.next_due(list(endpoint_seqs))}
        except Unavailable:
            # Endpoints come from the cache, so they can be shown without their backlogs.
            return dict.fromkeys(endpoint_seqs, UNKNOWN)
        return {
            seq: _backlog(found, seq, due[seq] if seq in due and due[seq] <= now else None) for seq in endpoint_seqs
        }

    async def _read(self, done: asyncio.Event) -> None:
        began = self._began_at = self._context.now()
        try:
            await self._readiness.probe()
            found = await self._context.database.read(lambda c: database_state.read(c, now=began, limit=COUNTED_MAX))
            due = await self._due(began)
            ended = self._context.now()
            backlog = found.backlog
            self._last = Reading(
                DatabaseReading(
                    read_at=began,
                    waiting={
                        "due": backlog.due,
                        "later": backlog.later,
                        "leased": found.leased,
                        "held": backlog.held,
                        "blocked": backlog.blocked,
                    },
                    pending=None if found.totals is None else sum(each.pending for each in found.totals.values()),
                    oldest_due_at=self._own_oldest_due(due),
                    # Without a mail server, emails that were added before do not wait.
                    emails_waiting=found.mails if self._sends_email else 0,
                    oldest_email_at=found.oldest_mail_at if self._sends_email else None,
                    replays={state.text: count for state, count in found.replays.items()},
                    oldest_event_at=found.oldest_event_at,
                ),
                open=found.totals,
                due=due,
                next_at=ended + max(FRESH_MS, (ended - began) * REST_PER_READING),
            )
            self._last_succeeded = True
        except StoreError:
            self._last_succeeded = False
        finally:
            self._done = None
            done.set()

    async def _due(self, now: int) -> dict[int, int]:
        due: dict[int, int] = {}
        after = 0
        while True:
            found = await self._context.database.due_endpoints(after=after, limit=DUE_ENDPOINTS_PER_READ)
            due.update(
                (each.endpoint_seq, each.due_at) for each in found if each.due_at is not None and each.due_at <= now
            )
            if len(found) < DUE_ENDPOINTS_PER_READ:
                return due
            after = found[-1].endpoint_seq

    def _own_oldest_due(self, due: Mapping[int, int]) -> dict[str, int | None]:
        """Return, for each cause of delay, the earliest due time of the delayed deliveries.

        The result covers the enabled endpoints that this process owns, or all enabled endpoints if no process sends
        deliveries.
        """
        status, known = self._context.engine.status, self._context.cache.endpoints
        no_process_sends = not status.sends()
        oldest: dict[str, int | None] = dict.fromkeys(HeldUpBy)
        for endpoint_seq, due_at in due.items():
            endpoint = known.get(endpoint_seq)
            if endpoint is None or not (no_process_sends or status.owns(endpoint_seq)):
                continue
            if endpoint.takes_deliveries:
                cause = status.held_up_by(endpoint_seq)
                oldest[cause] = min(due_at, oldest[cause] or due_at)
        return oldest
