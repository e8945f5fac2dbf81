"""Event ingest: match endpoints, build bodies, commit events and deliveries, and queue leased deliveries.

The store commits all requests in its queue at once, so commits grow with the load. The number of an account's rows in
the store's queue is limited. Further requests of the account wait in this module.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

import msgspec
import structlog

from uplift_server.core.deliveries.ordering import order_group
from uplift_server.core.events import envelope
from uplift_server.core.events.commit_rows import commit_rows
from uplift_server.core.ids import IdSequence, uuid_text
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.core.limits import (
    ACCEPTS_TURN_ROWS_MAX,
    BATCHES_TURN_ROWS_MAX,
    GROUP_ROWS_MAX,
)
from uplift_server.core.scheduling.lane import AttemptKind, Lane
from uplift_server.delivery.backlog import Backlog, full_queue
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint, LiveEventType
from uplift_server.delivery.filters import accepting
from uplift_server.delivery.listening.audience import Audience
from uplift_server.delivery.object_ids import object_id_of
from uplift_server.delivery.ports import Clock, Shards
from uplift_server.delivery.scheduling.due import DueEndpoints
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.observe.counters import EngineCounters, Rejection, SetAside
from uplift_server.store import deliveries
from uplift_server.store.contract import Database
from uplift_server.store.errors import Rejected, StoreError, Unavailable
from uplift_server.store.hot_records import Appended, IdempotencyConflict, LeasedDelivery, NewDelivery, NewEvent
from uplift_server.store.records import EndpointState

_log = structlog.get_logger()

COMMIT_TIMEOUT_MS: Final = 4000
"""The timeout of a commit, in ms.

The engine checks the timeout once per tick. Therefore, callers receive a response within 5 s.
"""
IDS_LOGGED_MAX: Final = 10
"""The maximum number of event IDs in a log line."""
# Use constants, because looking up a member of an enumeration takes as long as a function call.
_ENABLED: Final = EndpointState.ENABLED
_PENDING: Final = Status.PENDING
_SCHEDULE: Final = Trigger.SCHEDULE
_FIRST: Final = AttemptKind.FIRST


class Draft(msgspec.Struct, frozen=True):
    """A validated event: the catalog contains its type, and its data matches the schema."""

    event_type: LiveEventType
    data: bytes
    endpoints: Sequence[LiveEndpoint]
    """The endpoints that receive the event, from `EventIngest.recipients`."""
    id: bytes | None = None
    idempotency_key: str | None = None
    expires_at: int | None = None
    ordering_key: str | None = None
    created_at: int | None = None
    """When the server accepted the event (Unix ms). None if the event is accepted and stored at the same time."""
    has_server_id: bool = False
    """Whether the server created the ID when it accepted the event."""


class _Account(Backlog):
    """The requests of one account that are not stored yet."""

    __slots__ = ("queue", "seq", "storing_rows", "turn_rows")

    def __init__(self, seq: int) -> None:
        super().__init__()
        self.seq = seq
        self.turn_rows = ACCEPTS_TURN_ROWS_MAX if seq else BATCHES_TURN_ROWS_MAX
        self.storing_rows = 0
        """The number of the account's rows in the store's queue."""
        self.queue: deque[_Group] = deque()
        """The requests that wait for room in the store's queue."""


class _Group(msgspec.Struct, frozen=True):
    """The events of one request, and the deliveries to store with them."""

    account: _Account
    drafts: Sequence[tuple[int, Draft]]
    events: list[NewEvent]
    """The events to store. The list is empty until the group enters the store's queue."""
    reserved: list[tuple[int, LiveEndpoint, Lane[LeasedDelivery], int, int | None]]
    """The deliveries to store with a lease.

    Each tuple contains the event index, endpoint, lane, end of the lease (Unix ms), and order group.
    """
    foreign: list[int]
    """The endpoints that receive an event of the group and belong to other processes."""
    overflow: list[LiveEndpoint]
    """The endpoints with deliveries of the group that this process leases later, because it has no room now."""
    result: "asyncio.Future[list[Appended] | IdempotencyConflict]"
    accepted_at: int
    began_us: int
    """The time when `accept` was called, in µs of the monotonic clock."""
    body_bytes: int
    rows: int
    """The number of events and deliveries in the group. A large body counts as several rows."""
    rejectable: int
    """The number of events to count as rejected if the group cannot be stored."""


class StoredEvents(Protocol):
    """The interface that notifies listen streams of stored events."""

    def note_stored(self, account_seq: int) -> None:
        """Wake the listen streams of an account, because new events were stored."""


class BacklogFull(Exception):
    """A request has too many events and deliveries for one commit. A full queue raises Unavailable instead."""

    def __init__(self, rows: int) -> None:
        super().__init__(f"{rows} events and deliveries, more than the limit of {GROUP_ROWS_MAX}")


class Unstorable(Unavailable):
    """The database cannot store the events of a request. A retry would fail, too."""


class EventIngest:
    """Accepts events. An event is durable when the future that `accept` returned has a result."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        shards: Shards,
        lanes: DeliveryLanes,
        due: DueEndpoints,
        audience: Audience,
        stored: StoredEvents,
        clock: Clock,
        counters: EngineCounters,
        *,
        lease_ms: int,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._cache = cache
        self._shards = shards
        self._lanes = lanes
        self._due = due
        self._clock = clock
        self._counters = counters
        self._audience = audience
        self._listeners = stored
        self._lease_ms = lease_ms
        self._gathered: list[_Group] = []
        """The requests to store at the end of this iteration of the event loop."""
        self._backlog = Backlog()
        self._accounts: dict[int, _Account] = {}
        """The accounts with requests that are not stored yet. Key 0 is for requests with events of several accounts."""
        self._storing: dict[int, list[_Group]] = {}
        self._batches = 0
        self._closed = False
        self._failing = False
        self.ids = IdSequence(random_bytes)
        """The generator of all IDs that this process creates."""

    @property
    def waiting_events(self) -> int:
        """The number of received events that are not stored yet."""
        return self._backlog.events

    def close(self) -> None:
        """Reject new requests, and store the events of the queued requests."""
        self._closed = True

    def recipients(self, account_seq: int, event_type: str, data: bytes) -> Sequence[LiveEndpoint]:
        """Return the endpoints that are subscribed to the event type and whose filter matches the data (JSON)."""
        found = self._cache.subscribers(account_seq, event_type)
        return accepting(found.endpoints, data, self._counters) if found.have_filters else found.endpoints

    def accept(
        self, account_seq: int, drafts: Sequence[Draft]
    ) -> "asyncio.Future[list[Appended] | IdempotencyConflict]":
        """Store all events of a request, or none of them. The future resolves when the events are durable.

        Raises BacklogFull if the request is too large, and Unavailable if the queue is full or the server is stopping.
        The future raises Unavailable if the store fails.
        """
        return self.accept_for([(account_seq, draft) for draft in drafts])

    def accept_for(
        self, drafts: Sequence[tuple[int, Draft]], *, is_request: bool = True
    ) -> "asyncio.Future[list[Appended] | IdempotencyConflict]":
        """Store all events of one or more accounts, or none of them. The result and the errors are those of `accept`.

        `is_request` is false for events from the event stream. If the store fails, these events do not count as
        rejected, because the stream repeats them until they are stored.
        """
        rejectable = len(drafts) if is_request else 0
        if self._closed:
            raise self._rejected(rejectable, Rejection.STOPPING, "the server is shutting down")
        seq, deliveries, rows, body_bytes = drafts[0][0], 0, 0, 0
        for account_seq, draft in drafts:
            deliveries += len(draft.endpoints)
            rows += commit_rows(len(draft.endpoints), len(draft.data))
            body_bytes += len(draft.data)
            if account_seq != seq:
                seq = 0
        if len(drafts) + deliveries > GROUP_ROWS_MAX:
            raise BacklogFull(len(drafts) + deliveries)
        account = self._accounts.get(seq)
        if account is None:
            account = _Account(seq)
        events = len(drafts)
        self._check_room(account, events, rows, rejectable)
        self._accounts[seq] = account
        result: asyncio.Future[list[Appended] | IdempotencyConflict] = asyncio.get_running_loop().create_future()
        now = self._clock.now_ms()
        began_us = self._clock.monotonic_us()
        group = _Group(account, drafts, [], [], [], [], result, now, began_us, body_bytes, rows, rejectable)
        for backlog in (self._backlog, account):
            backlog.add(events, body_bytes, rows)
        if account.queue or account.storing_rows >= account.turn_rows:
            account.queue.append(group)
        else:
            self._gather(group, now)
        return result

    async def endpoints_of(self, event_seqs: Collection[int]) -> dict[int, list[bytes]]:
        """For each stored event, return the IDs of the endpoints that have a delivery of the event.

        Raises Unavailable.
        """
        return await self._database.read(lambda c: deliveries.endpoint_ids_of_events(c, event_seqs))

    def _check_room(self, account: _Account, events: int, rows: int, rejectable: int) -> None:
        """Raise Unavailable if the account's backlog or the total backlog is too large."""
        text = full_queue(self._backlog, account, events, rows)
        if text is not None:
            raise self._rejected(rejectable, Rejection.FULL, text)

    def _gather(self, group: _Group, now: int) -> None:
        """Create the events of a request, and store them at the end of this iteration of the event loop."""
        for account_seq, draft in group.drafts:
            group.events.append(self._event(account_seq, draft, now, group))
        group.account.storing_rows += group.rows
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._flush)
        self._gathered.append(group)

    def expire_waiting(self) -> None:
        """Fail the requests that have waited for COMMIT_TIMEOUT_MS.

        The store may still commit the events of a failed request. If the caller repeats the request, the server finds
        the events by the idempotency key.
        """
        oldest = self._clock.now_ms() - COMMIT_TIMEOUT_MS
        for groups in self._storing.values():
            for group in groups:
                # Check every request: batches are not sorted by age, because a request may wait in its account's queue.
                if group.accepted_at <= oldest:
                    self._time_out(group)
        for account in list(self._accounts.values()):
            while account.queue and account.queue[0].accepted_at <= oldest:
                group = account.queue.popleft()
                self._time_out(group)
                self._finish_group(group)

    def _time_out(self, group: _Group) -> None:
        if not group.result.done():
            error = self._rejected(group.rejectable, Rejection.STORE, "the database does not respond")
            group.result.set_exception(error)

    def _rejected(self, events: int, why: Rejection, text: str) -> Unavailable:
        self._counters.rejected[why] += events
        return Unavailable(text)

    def _event(self, account_seq: int, draft: Draft, now: int, group: _Group) -> NewEvent:
        event_type = draft.event_type
        event_id = draft.id or self.ids.next(now)
        created_at = now if draft.created_at is None else draft.created_at
        body = envelope.build(
            uuid_text(event_id), event_type.name, event_type.record.api_version, created_at, draft.data
        )
        deliveries = []
        for endpoint in draft.endpoints:
            if endpoint.deleted:
                continue
            group_number = order_group(endpoint.record.settings.ordering, draft.ordering_key)
            if endpoint.record.state is not _ENABLED:
                deliveries.append(NewDelivery(endpoint.seq, Status.HELD, None, 0, group_number))
                continue
            is_own = self._shards.owns(endpoint.seq)
            if not (is_own and self._shards.may_send()):
                group.foreign.append(endpoint.seq)
                if is_own:
                    # If no process evicts this process, it sends the delivery after its next heartbeat.
                    group.overflow.append(endpoint)
                deliveries.append(NewDelivery(endpoint.seq, _PENDING, now, 0, group_number))
                continue
            lane = self._lanes.of(endpoint)
            if self._lanes.room(lane, now) > 0:
                self._lanes.reserve(lane, len(body))
                lease_until = now + self._lease_ms
                process_id = self._shards.process_id
                deliveries.append(NewDelivery(endpoint.seq, _PENDING, lease_until, process_id, group_number))
                group.reserved.append((len(group.events), endpoint, lane, lease_until, group_number))
            else:
                group.overflow.append(endpoint)
                deliveries.append(NewDelivery(endpoint.seq, _PENDING, now, 0, group_number))
        return NewEvent(
            event_id,
            account_seq,
            event_type.seq,
            created_at,
            draft.expires_at,
            body,
            deliveries,
            draft.idempotency_key,
            draft.id is not None,
            draft.data,
            object_id_of(draft.data),
            draft.ordering_key,
            draft.has_server_id,
        )

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        groups: list[_Group] = []
        rows = 0
        for group in gathered:
            groups.append(group)
            rows += group.rows
            if rows >= ACCEPTS_TURN_ROWS_MAX:
                self._store(groups)
                groups, rows = [], 0
        if groups:
            self._store(groups)

    def _store(self, groups: list[_Group]) -> None:
        self._batches += 1
        batch = self._batches
        self._storing[batch] = groups
        stored = asyncio.ensure_future(self._database.append([group.events for group in groups]))
        stored.add_done_callback(lambda future: self._stored(batch, groups, future))

    def _stored(
        self,
        batch: int,
        groups: list[_Group],
        stored: "asyncio.Future[list[list[Appended] | IdempotencyConflict]]",
    ) -> None:
        del self._storing[batch]
        error = stored.exception()
        if error is not None and not isinstance(error, StoreError):
            if len(groups) > 1:
                # Halve the batch until the rejected group is alone, which takes log2(n) more commits.
                half = len(groups) // 2
                self._store(groups[:half])
                self._store(groups[half:])
                return
            self._set_aside(groups[0], error)
        else:
            self._log_failure(error)
        results = [None] * len(groups) if error is not None else stored.result()
        if error is None:
            self._count(groups, stored.result())
        for group, result in zip(groups, results, strict=True):
            self._push_leased(group, result)
            group.account.storing_rows -= group.rows
            self._finish_group(group)
            if group.result.done():
                continue
            if result is not None:
                group.result.set_result(result)
            else:
                assert error is not None
                self._counters.rejected[Rejection.STORE] += group.rejectable
                group.result.set_exception(
                    error if isinstance(error, StoreError) else Unstorable("the server could not store the events")
                )
        foreign = {seq: None for group in groups for seq in group.foreign}
        if foreign and error is None:
            self._shards.notify_owners(foreign)
        if error is None:
            self._note_overflow(groups)
        self._lanes.pump()

    def _note_overflow(self, groups: list[_Group]) -> None:
        """Record the endpoints whose lanes had no room, so that the dispatcher leases their deliveries later."""
        now = self._clock.now_ms()
        has_room = False
        for endpoint in {each.seq: each for group in groups for each in group.overflow}.values():
            self._due.note_backlog(endpoint.seq)
            has_room = has_room or self._lanes.room(self._lanes.of(endpoint), now) > 0
        if has_room:
            self._due.wake()

    def _finish_group(self, group: _Group) -> None:
        """Subtract a stored or rejected request from the backlog, and gather the account's waiting requests."""
        account = group.account
        for backlog in (self._backlog, account):
            backlog.add(-len(group.drafts), -group.body_bytes, -group.rows)
        while account.queue and account.storing_rows < account.turn_rows:
            self._gather(account.queue.popleft(), self._clock.now_ms())
        if not account.events:
            del self._accounts[account.seq]

    def _count(self, groups: list[_Group], results: list[list[Appended] | IdempotencyConflict]) -> None:
        repeated = [event.duplicate for stored in results if isinstance(stored, list) for event in stored]
        counters = self._counters
        counters.accepted += repeated.count(False)
        counters.duplicates += repeated.count(True)
        now_us, observe = self._clock.monotonic_us(), counters.accept_durations.observe
        for group in groups:
            observe(now_us - group.began_us)

    def _set_aside(self, group: _Group, error: BaseException) -> None:
        self._counters.set_aside[SetAside.EVENT] += len(group.events)
        _log.error(
            "row not stored",
            kind=SetAside.EVENT.text,
            events=[uuid_text(event.id) for event in group.events[:IDS_LOGGED_MAX]],
            count=len(group.events),
            cause=str(error),
            exc_info=None if isinstance(error, Rejected) else error,
        )

    def _log_failure(self, error: BaseException | None) -> None:
        """Log when event storage starts to fail, and when it recovers."""
        if error is not None and not self._failing:
            _log.error("event storage failed", cause=str(error))
        elif error is None and self._failing:
            _log.warning("event storage recovered")
        self._failing = error is not None

    def _push_leased(self, group: _Group, result: list[Appended] | IdempotencyConflict | None) -> None:
        """Wake listen streams, and queue the leased deliveries that were stored.

        For deliveries that were not stored with a lease, release the reserved room.
        """
        stored = result if isinstance(result, list) else None
        listened = self._audience.accounts
        if listened and stored is not None:
            for account_seq in {event.account_seq for event in group.events}:
                if account_seq in listened:
                    self._listeners.note_stored(account_seq)
        for index, endpoint, lane, lease_until, group_number in group.reserved:
            event = group.events[index]
            if stored is None or stored[index].duplicate or endpoint.seq in stored[index].blocked:
                self._lanes.end_reservation(lane, len(event.body))
                continue
            seq = stored[index].seq
            leased = LeasedDelivery(
                seq,
                endpoint.seq,
                1,
                lease_until,
                0,
                0,
                _SCHEDULE,
                event.id,
                event.type_seq,
                event.created_at,
                event.expires_at,
                event.body,
                order_group=group_number,
            )
            self._lanes.push_reserved(lane, leased, _FIRST)
