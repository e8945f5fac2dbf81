"""Creates operational events for the subscribed accounts.

When a transaction makes a change, it also adds a row for the event that reports the change. Later, ingest stores the
event under an idempotency key, and this job deletes the row. The key prevents a second event if the server restarts
after it has stored the event, but before it has deleted the row.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import structlog

from uplift_server.core.deliveries.operational_events import event_data
from uplift_server.core.events.operational import OperationalKind
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint, LiveEventType
from uplift_server.delivery.ingest import BacklogFull, Draft
from uplift_server.delivery.ports import Clock, SingletonJobs
from uplift_server.observe.counters import EngineCounters
from uplift_server.store import operational_events
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import Appended, IdempotencyConflict
from uplift_server.store.operational_events import DueCount, OperationalEvent

ROWS_PER_ROUND: Final = 200
"""The maximum number of rows in one read of waiting operational events or failure counts."""
ROUND_PAUSE_MS: Final = 20
"""The pause after a read that returned ROWS_PER_ROUND rows, in ms."""
DEFECT_WAIT_MS: Final = 60_000
_log = structlog.get_logger()


class Ingest(Protocol):
    """The interface that stores events with their deliveries."""

    def recipients(self, account_seq: int, event_type: str, data: bytes) -> Sequence[LiveEndpoint]:
        """Return the endpoints that are subscribed to the event type and whose filter matches the data (JSON)."""

    def accept_for(self, drafts: Sequence[tuple[int, Draft]]) -> "asyncio.Future[list[Appended] | IdempotencyConflict]":
        """Store all events of one or more accounts, or none of them.

        Both the call and the future can raise BacklogFull or Unavailable.
        """


class OperationalEvents:
    """Sends the operational events of all accounts and endpoints."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        ingest: Ingest,
        jobs: SingletonJobs,
        clock: Clock,
        counters: EngineCounters,
        *,
        new_id: Callable[[int], bytes],
        every_ms: int,
        operations_account: str | None,
        public_url: str,
    ) -> None:
        """Create the job.

        `operations_account` is the ID or uid of the account that receives the events about all accounts. `new_id`
        creates an ID from a time (Unix ms).
        """
        self._database = database
        self._cache = cache
        self._ingest = ingest
        self._jobs = jobs
        self._clock = clock
        self._counters = counters
        self._new_id = new_id
        self._every_ms = every_ms
        self._operations_account = operations_account
        self._public_url = public_url

    async def run(self, stopping: asyncio.Event) -> None:
        """Send events until the process stops or the task is cancelled."""
        wait_ms = self._every_ms
        while not stopping.is_set():
            await self._clock.wait(stopping, wait_ms)
            wait_ms = self._every_ms
            if not self._jobs.holds(SingletonJob.OPERATIONAL_EVENTS):
                continue
            try:
                if await self._round():
                    wait_ms = ROUND_PAUSE_MS
            except Unavailable:
                continue
            except Exception:
                # A defect must not stop deliveries.
                _log.exception("operational event processing failed")
                wait_ms = DEFECT_WAIT_MS

    async def _round(self) -> bool:
        """Send a batch of the waiting events. Return whether more events may be waiting."""
        now = self._clock.now_ms()
        counts = await self._database.read(lambda c: operational_events.due_counts(c, now=now, limit=ROWS_PER_ROUND))
        if counts:
            await self._report_failed(counts, now)
        events = await self._database.read(lambda c: operational_events.waiting(c, limit=ROWS_PER_ROUND))
        if events:
            done = [event.id for event in await asyncio.gather(*map(self._send, events)) if event is not None]
            await self._database.write(lambda c: operational_events.delete(c, done))
        return ROWS_PER_ROUND in (len(counts), len(events))

    async def _report_failed(self, counts: Sequence[DueCount], now: int) -> None:
        reported = {each.endpoint_seq for each in counts if self._has_subscriber(each)}
        await self._database.write(
            lambda c: operational_events.report_failed(
                c, [each.endpoint_seq for each in counts], reported, new_id=lambda: self._new_id(now), now=now
            )
        )

    async def _send(self, event: OperationalEvent) -> OperationalEvent | None:
        """Store an event in its account and in the operations account, if they have endpoints that receive the event.

        The endpoint that the event is about does not receive the event. Return None if the store is unavailable.
        Otherwise, return the event, so that its row can be deleted.
        """
        event_type = self._type(event.kind)
        if event_type is None:
            return event
        facts = event_data(event.kind, event.facts, public_url=self._public_url)
        data = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()
        key = f"operational-{event.id.hex()}"
        # The ordering key is the ID of the endpoint, even for an event about a failed delivery.
        ordering_key = str(event.facts.get("endpoint", event.facts["id"]))
        drafts = []
        for account_seq in self._accounts(event.account_seq):
            found = self._ingest.recipients(account_seq, event_type.name, data)
            recipients = [each for each in found if each.seq != event.endpoint_seq]
            if recipients:
                draft = Draft(event_type, data, recipients, idempotency_key=key, ordering_key=ordering_key)
                drafts.append((account_seq, draft))
        if not drafts:
            return event
        try:
            stored = await self._ingest.accept_for(drafts)
        except Unavailable:
            return None
        except BacklogFull as error:
            _log.error("operational event dropped", type=event_type.name, object=event.facts["id"], cause=str(error))
            return event
        # A conflict means that the event is already stored, with an earlier URL of the dashboard.
        if isinstance(stored, list) and not all(each.duplicate for each in stored):
            self._counters.operational_events[event.kind] += 1
        return event

    def _type(self, kind: OperationalKind) -> LiveEventType | None:
        """Return the event type of an operational event, or None if an operator deleted or archived the type."""
        event_type = self._cache.event_types.get(kind.type_name)
        return None if event_type is None or event_type.archived else event_type

    def _accounts(self, account_seq: int) -> Iterator[int]:
        """Return the given account and the operations account, if there is one."""
        yield account_seq
        if self._operations_account is not None:
            # The operations account may have been deleted since the server started.
            operations = self._cache.find_account(self._operations_account)
            if operations is not None and operations.seq != account_seq:
                yield operations.seq

    def _has_subscriber(self, count: DueCount) -> bool:
        """Return whether an endpoint other than the failing endpoint is subscribed to events about failed deliveries.

        Do not evaluate the filters of the endpoints.
        """
        event_type = self._type(OperationalKind.DELIVERY_FAILED)
        return event_type is not None and any(
            endpoint.seq != count.endpoint_seq
            for account_seq in self._accounts(count.account_seq)
            for endpoint in self._cache.subscribers(account_seq, event_type.name).endpoints
        )
