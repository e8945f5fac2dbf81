"""The consumer of the event stream: stores valid events in stream order, and rejects invalid events.

The consumer removes a message from the stream after it has committed its events and rejections, and after it has
published its rejected events. If NATS delivers a message again, its events have the same IDs, so the database detects
the repeats.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from msgspec import structs

from uplift_server.core.events.commit_rows import commit_rows
from uplift_server.core.ids import RANDOM_BYTES, parse_uuid, uuid7
from uplift_server.core.limits import ACCEPTS_TURN_ROWS_MAX, BATCH_CHECK_SECONDS_MAX
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.ingest import BacklogFull, Draft, Unstorable
from uplift_server.delivery.ports import CacheFreshness, Clock
from uplift_server.delivery.streams.link import Link, StreamError, StreamUnavailable, log_fields
from uplift_server.delivery.streams.messages import AcceptedEvent
from uplift_server.delivery.streams.ports import PublishedEvents, Rejection, StreamJobs, TraceSink
from uplift_server.delivery.streams.progress import Progress
from uplift_server.delivery.streams.pull import Pull, StreamMessage
from uplift_server.delivery.streams.rejections import RejectionPublisher, rejected_row, row_id
from uplift_server.delivery.streams.stream import EventStream, read_stream
from uplift_server.delivery.streams.stream_events import Source, StreamEvent, sources
from uplift_server.observe.counters import EngineCounters, SetAside
from uplift_server.store import event_times, rejected_events
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.event_times import DISORDER_MS, LateEvents
from uplift_server.store.hot_records import Appended, IdempotencyConflict

IDLE_WAIT_MS: Final = 100
NEXT_WITHIN_MS: Final = 1_000
SYNC_WAIT_MS: Final = 20
RETRY_MS_MIN: Final = 100
RETRY_MS_MAX: Final = 2_000
DEFECT_WAIT_MS: Final = 5_000
LOG_EVERY_MS: Final = 10_000
LATE_MS: Final = DISORDER_MS // 2
"""An event is late if more than this time, in ms, passes between its acceptance and its storage.

The limit is lower than DISORDER_MS, because the commit also takes time.
"""
_log = structlog.get_logger()


class Ingest(Protocol):
    """The interface that stores events with their deliveries."""

    def accept_for(
        self, drafts: Sequence[tuple[int, Draft]], *, is_request: bool
    ) -> "asyncio.Future[list[Appended] | IdempotencyConflict]":
        """Store the events of one or more accounts in one commit.

        Both the call and the future can raise BacklogFull or Unavailable.
        """


@dataclass(frozen=True, slots=True)
class _Reading:
    """The messages that this process reads over one connection, and what it has done with them."""

    pull: Pull
    progress: Progress
    rejections: RejectionPublisher
    redelivered_to: int
    """The number of the last message that an earlier consumer may have received."""


class StreamConsumer:
    """Stores the events of the stream while this process holds the singleton job."""

    def __init__(
        self,
        stream: EventStream,
        cache: EndpointCache,
        freshness: CacheFreshness,
        ingest: Ingest,
        published: PublishedEvents,
        database: Database,
        jobs: StreamJobs,
        clock: Clock,
        counters: EngineCounters,
        traces: TraceSink | None,
    ) -> None:
        self._stream = stream
        self._cache = cache
        self._freshness = freshness
        self._ingest = ingest
        self._published = published
        self._database = database
        self._jobs = jobs
        self._clock = clock
        self._counters = counters
        self._traces = traces
        self._reading: _Reading | None = None
        self._removal: asyncio.Task[None] | None = None
        """The latest task that removes stored messages, which may still be running."""
        self._logged_at = 0
        self._late: LateEvents | None = None
        """The period and maximum delay of late events that the database contains. None before the first late event."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Store events until the process stops or the task is cancelled."""
        while not stopping.is_set():
            link = self._stream.link
            self._jobs.set_possible(SingletonJob.EVENT_STREAM, is_possible=self._stream.trouble() is None)
            if link is None or not self._has_job:
                await self._end_reading()
                await self._clock.wait(stopping, IDLE_WAIT_MS)
                continue
            try:
                if self._reading is None or self._reading.pull.link is not link:
                    self._drop_reading()
                    self._reading = await self._begin(link)
                    _log.info("event stream consumer started")
                pull = self._reading.pull
                self._remove_stored(pull)
                await pull.renew()
                await self._store(self._reading, await pull.next(NEXT_WITHIN_MS), stopping)
            except (StreamUnavailable, StreamError) as error:
                self._note_interrupted(error)
                self._drop_reading()
                is_short = isinstance(error, StreamUnavailable)
                await self._clock.wait(stopping, RETRY_MS_MIN if is_short else RETRY_MS_MAX)
            except Exception:
                # A defect must not stop deliveries. NATS delivers the messages again.
                _log.exception("event stream consumer failed")
                self._drop_reading()
                await self._clock.wait(stopping, DEFECT_WAIT_MS)
        await self._end_reading()

    async def _begin(self, link: Link) -> _Reading:
        """Begin to read messages over a connection. Raises StreamUnavailable or StreamError."""
        pull = await Pull.begin(link, self._clock)
        last_seq = (await read_stream(link, self._clock.now_ms())).last_seq
        progress = Progress(pull)
        return _Reading(pull, progress, RejectionPublisher(progress, link, self._stream, self._clock), last_seq)

    def _drop_reading(self) -> None:
        """Forget the messages that are not done. NATS delivers them again."""
        if self._reading is not None:
            self._reading.rejections.close()
        self._reading = None

    async def _end_reading(self) -> None:
        """Stop reading messages, and try to remove the stored messages from the stream.

        If the removal succeeds, NATS does not deliver these messages to another process that takes over the job.
        """
        pull = None if self._reading is None else self._reading.pull
        self._drop_reading()
        removal, self._removal = self._removal, None
        if removal is not None:
            await removal
        if pull is not None:
            with contextlib.suppress(StreamUnavailable, StreamError):
                await pull.remove_stored(at_once=True)

    def _remove_stored(self, pull: Pull) -> None:
        """Start removing the stored messages, unless a removal is already running.

        If the removal fails, the next read from the stream raises StreamUnavailable.
        """
        if self._removal is None or self._removal.done():
            self._removal = asyncio.create_task(_removed(pull), name="removal of stored messages")

    def _note_interrupted(self, error: Exception) -> None:
        now = self._clock.now_ms()
        if now - self._logged_at >= LOG_EVERY_MS:
            _log.warning("event stream interrupted", **log_fields(error))
            self._logged_at = now

    @property
    def _has_job(self) -> bool:
        return self._jobs.holds(SingletonJob.EVENT_STREAM)

    async def _store(self, reading: _Reading, messages: Sequence[StreamMessage], stopping: asyncio.Event) -> None:
        """Store messages in stream order.

        If this process loses the job, NATS delivers the remaining messages again.
        """
        pull, progress = reading.pull, reading.progress
        todo, wait_ms = await self._sources(messages), RETRY_MS_MIN
        progress.begin(todo)
        while todo and not stopping.is_set() and self._has_job:
            await pull.renew()
            if reading.rejections.is_full:
                if pull.link.closed.is_set():
                    raise StreamUnavailable(pull.link.cause)
                await self._clock.wait(stopping, RETRY_MS_MIN)
                continue
            events = await self._next_events(todo)
            if not events:
                # Another process may have just created an object that the first event refers to.
                self._freshness.wake()
                await self._clock.wait(stopping, SYNC_WAIT_MS)
                continue
            if await self._restore_rejections(reading, events) and await self._note_late(events):
                await self._commit(events)
                for event in events:
                    if event.is_done:
                        progress.note_done(event.source)
                await self._reject(reading.rejections, [each for each in events if each.rejection is not None])
            self._remove_stored(pull)
            undone = [each.source for each in events if not each.is_done]
            todo = undone + todo[len(events) :]
            if not undone:
                wait_ms = RETRY_MS_MIN
            else:
                await self._clock.wait(stopping, wait_ms)
                wait_ms = min(2 * wait_ms, RETRY_MS_MAX)

    async def _sources(self, messages: Sequence[StreamMessage]) -> list[Source]:
        """Return the sources of the events in messages, in order."""
        found: list[Source] = []
        began = self._clock.monotonic_us()
        for message in messages:
            began = await self._let_others_run(began)
            found += sources(message)
        return found

    async def _let_others_run(self, began: int) -> int:
        """Let other tasks run if this task has run too long since `began` (monotonic µs).

        Return the time since which this task has run.
        """
        if self._clock.monotonic_us() - began <= BATCH_CHECK_SECONDS_MAX * 1_000_000:
            return began
        await asyncio.sleep(0)
        return self._clock.monotonic_us()

    async def _next_events(self, todo: Sequence[Source]) -> list[StreamEvent]:
        """Check the next events, up to the size of one commit.

        Stop before an event whose check needs a newer cache.
        """
        events: list[StreamEvent] = []
        rows, began = 0, self._clock.monotonic_us()
        for source in todo:
            began = await self._let_others_run(began)
            event = self._checked(source)
            if event is None:
                break
            events.append(event)
            # Count in the same way as `EventIngest`. Otherwise, it would store the batch in several commits, and the
            # later events could be stored first.
            rows += 1 if event.draft is None else commit_rows(len(event.draft.endpoints), len(event.draft.data))
            if rows >= ACCEPTS_TURN_ROWS_MAX:
                break
        return events

    # ---- checks

    def _checked(self, source: Source) -> StreamEvent | None:
        """Check an event, and set its draft or its rejection.

        Return None if this process must first update its cache.
        """
        event = StreamEvent(source)
        try:
            if source.accepted is not None:
                is_current = self._check_accepted(event, source.accepted)
            elif source.account is not None:
                is_current = self._check_published(event, source.account)
            else:
                raise ValueError(
                    "the server's message is not a list of events, or this event in the message is not valid"
                )
        except Exception as error:
            self._set_aside(event, error)
            return event
        return event if is_current or self._is_fresh(source.message) else None

    def _check_published(self, event: StreamEvent, account_name: str) -> bool:
        """Check an event that an emitter published, and set its draft or its rejection.

        `account_name` is the account's ID or uid. Return False if the result may depend on an outdated cache.
        """
        message = event.source.message
        account = self._cache.find_account(account_name)
        if account is None:
            event.rejection = self._published.unknown_account(account_name, message.data)
            return False
        event.account_seq = account.seq
        checked = self._published.check(account.seq, message.data, sent_at=message.published_at)
        if isinstance(checked, Rejection):
            event.rejection = checked
            return False
        created_at = min(message.published_at, self._clock.now_ms())
        event.draft = structs.replace(
            checked,
            id=checked.id or _derived_id(message),
            created_at=created_at,
            has_server_id=checked.id is None,
        )
        return True

    def _check_accepted(self, event: StreamEvent, accepted: AcceptedEvent) -> bool:
        """Check an event that the server has already accepted, and set its draft.

        Return False if the cache lacks the account, the type or an endpoint of the event. Raises ValueError if the
        event ID is not valid, or if the event type does not exist.
        """
        account = self._cache.find_account(accepted.account)
        event.account_seq = None if account is None else account.seq
        event_id = parse_uuid(accepted.id)
        if event_id is None:
            raise ValueError("the event ID in the message is not a UUID")
        if account is None:
            event.rejection = self._published.unknown_account(accepted.account)
            return False
        event_type = self._cache.event_types_by_seq.get(accepted.type_number)
        if event_type is None or event_type.name != accepted.type:
            event_type = self._cache.event_types.get(accepted.type)
        if event_type is None:
            if self._is_fresh(event.source.message):
                raise ValueError(f"the event type {accepted.type[:200]} does not exist")
            return False
        found = [self._cache.endpoints.get(seq) for seq in accepted.endpoints]
        event.draft = Draft(
            event_type,
            bytes(accepted.data),
            # Omit endpoints of other accounts: after a restore, a message can contain their sequence numbers.
            [each for each in found if each is not None and each.record.account_seq == account.seq],
            event_id,
            accepted.idempotency_key,
            accepted.expires_at,
            accepted.ordering_key,
            accepted.created_at,
            not accepted.chose_id,
        )
        return None not in found

    def _is_fresh(self, message: StreamMessage) -> bool:
        """Return whether the cache contains all changes that were made before a message arrived.

        If so, an object that is not in the cache does not exist.
        """
        return self._freshness.synced_at > message.received_at

    # ---- commits

    async def _restore_rejections(self, reading: _Reading, events: Sequence[StreamEvent]) -> bool:
        """Restore the rejections of redelivered events. Return False if the database is unavailable.

        An event that was rejected can be valid now, for example if its type has been created since. It must not be
        delivered, because the rejection was published.
        """
        redelivered = {row_id(each): each for each in events if each.source.message.seq <= reading.redelivered_to}
        if not redelivered:
            return True
        try:
            rows = await self._database.read(lambda c: rejected_events.find(c, list(redelivered)))
        except Unavailable:
            return False
        for row in rows:
            event = redelivered[row.id]
            event.draft, event.was_rejected = None, True
            event.rejection = Rejection(row.problem, row.event_type, row.event_id, row.idempotency_key)
        return True

    async def _note_late(self, events: Sequence[StreamEvent]) -> bool:
        """If events are late, record their time range and delay. Return False if the database is unavailable.

        Call this method before the events are stored. Otherwise, searches by time could miss the events.
        """
        now = self._clock.now_ms()
        since = min((each.draft.created_at or now for each in events if each.draft is not None), default=now)
        if now - since <= LATE_MS:
            return True
        late = LateEvents(since, now, now - since)
        if self._late is None or not self._late.covers(late):
            # Add a margin, so that the next messages need no write.
            wide = LateEvents(since - DISORDER_MS, now + DISORDER_MS, now - since + DISORDER_MS)
            try:
                self._late = await self._database.write(lambda c: event_times.note_late(c, wide))
            except Unavailable:
                return False
        return True

    async def _commit(self, events: Sequence[StreamEvent]) -> None:
        stored: list[tuple[StreamEvent, asyncio.Future[list[Appended] | IdempotencyConflict]]] = []
        for event in events:
            if event.draft is None or event.account_seq is None:
                continue
            try:
                stored.append((event, self._ingest.accept_for([(event.account_seq, event.draft)], is_request=False)))
            except BacklogFull as error:
                self._set_aside(event, error)
            except Unavailable:
                break  # the following events wait too, to keep the order
        results = await asyncio.gather(*(future for _, future in stored), return_exceptions=True)
        for (event, _), result in zip(stored, results, strict=True):
            self._note_result(event, result)

    def _note_result(self, event: StreamEvent, result: list[Appended] | IdempotencyConflict | BaseException) -> None:
        draft = event.draft
        assert draft is not None
        if isinstance(result, list):
            event.is_done = True
            accepted = event.source.accepted
            traceparent = None if accepted is None else accepted.traceparent
            if self._traces is not None and traceparent is not None and not result[0].duplicate:
                self._traces.note_sender(result[0].seq, result[0].id, traceparent)
        elif isinstance(result, IdempotencyConflict):
            if result.field == "id" and draft.has_server_id:
                # Only this event has this ID, so it is already stored, but was changed later (for example, erased).
                event.is_done = True
            else:
                event.rejection = self._published.conflict(_as_known(event, draft), result)
        elif isinstance(result, Unstorable):  # `EventIngest` has logged and counted the defect.
            event.rejection = self._published.defect(_as_known(event, draft))
        elif not isinstance(result, Unavailable):
            self._set_aside(event, result)

    def _set_aside(self, event: StreamEvent, error: BaseException) -> None:
        source = event.source
        self._counters.set_aside[SetAside.EVENT] += 1
        _log.error(
            "row not stored",
            kind=SetAside.EVENT.text,
            subject=source.message.subject,
            stream_seq=source.message.seq,
            position=source.position,
            account=source.account,
            event_id=None if source.accepted is None else source.accepted.id,
            cause=str(error),
            exc_info=None if isinstance(error, BacklogFull | ValueError) else error,
        )
        event.rejection = self._published.defect(None if event.draft is None else _as_known(event, event.draft))

    async def _reject(self, rejections: RejectionPublisher, events: Sequence[StreamEvent]) -> None:
        """Store rejections, and start publishing the rejected events with their problems."""
        if not events:
            return
        now = self._clock.now_ms()
        rows = [rejected_row(each, now) for each in events]
        try:
            await self._database.write(lambda c: rejected_events.add(c, *rows))
        except Unavailable:
            return
        rejections.add(events)
        for event in events:
            event.is_done = True
            self._counters.rejected_events += not event.was_rejected


async def _removed(pull: Pull) -> None:
    try:
        await pull.remove_stored()
    except (StreamUnavailable, StreamError) as error:
        pull.fail(str(error))


def _as_known(event: StreamEvent, draft: Draft) -> Draft:
    """Return the draft of an event as its emitter knows it.

    If the event came from NATS, its emitter does not know an ID that the server created. If it came from a request, the
    response contained this ID.
    """
    return structs.replace(draft, id=None) if draft.has_server_id and event.source.accepted is None else draft


def _derived_id(message: StreamMessage) -> bytes:
    """Return an ID for an event whose emitter chose none.

    If NATS delivers the message again, the ID is the same: it depends only on the message's position and time in the
    stream.
    """
    random = hashlib.sha256(f"{message.seq} {message.published_ns}".encode()).digest()[:RANDOM_BYTES]
    return uuid7(message.published_at, random)
