"""Ingest through the event stream: an event is accepted when the replicated stream has stored its message.

The publisher sends events in acceptance order. While NATS stores the sent messages, the next events wait. Waiting
events share messages, because NATS stores one message with many events faster than many messages. The publisher repeats
an unacknowledged message with the same message ID until its requests time out. NATS stores the message only once.
"""

import asyncio
import base64
from collections import deque
from collections.abc import Collection, Sequence
from typing import Final, Protocol

import msgspec
import structlog

from uplift_server.core import ids
from uplift_server.core.events.stream_shares import StreamShares
from uplift_server.core.events.stream_subjects import ACCEPTED_SUBJECT, EVENTS_STREAM
from uplift_server.core.ids import IdSequence
from uplift_server.core.limits import GROUP_ROWS_MAX
from uplift_server.delivery.backlog import Backlog, full_queue
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.ingest import COMMIT_TIMEOUT_MS, BacklogFull, Draft
from uplift_server.delivery.ports import Clock
from uplift_server.delivery.streams.known_events import KnownEventFinder
from uplift_server.delivery.streams.link import NOT_FOUND, Link, Received, StreamError, StreamUnavailable
from uplift_server.delivery.streams.messages import (
    MESSAGE_ID,
    AcceptedEvent,
    encode_event,
    identify,
    may_repeat,
    parse_accepted,
)
from uplift_server.delivery.streams.publications import AccountBacklog, Publication, Request, WaitingEvent
from uplift_server.delivery.streams.stream import EventStream
from uplift_server.observe.counters import EngineCounters, Rejection
from uplift_server.observe.trace_records import TRACEPARENT
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import Appended, IdempotencyConflict

TICK_MS: Final = 100
RESEND_AFTER_MS: Final = 800
"""How long the publisher waits for an acknowledgment before it repeats a message, in ms.

The wait is longer than a slow fsync. It is short enough for several repeats while NATS elects a leader.
"""
GROUP_WAIT_MS_MAX: Final = 100
"""The maximum time from the start of a group to the start of the next group, in ms.

Without this limit, one lost acknowledgment would block all later messages, including the repeat of its own message.
"""
ORIGINALS_AT_ONCE: Final = 20
"""The maximum number of concurrent reads of earlier messages that new messages may repeat."""
_FULL: Final = "maximum"
"""The beginning of JetStream's errors about a full stream, such as "maximum bytes exceeded"."""
_log = structlog.get_logger()


class EventStreamUnavailable(Unavailable):
    """The event stream has not acknowledged an event. The stream may still store the event."""

    advice = "The event stream is full or temporarily unavailable. Try again in a moment."


class Recipients(Protocol):
    """The interface that finds the recipients of an event."""

    def recipients(self, account_seq: int, event_type: str, data: bytes) -> Sequence[LiveEndpoint]:
        """Return the endpoints that are subscribed to the event type and whose filter matches the data (JSON)."""


class _Ack(msgspec.Struct):
    """JetStream's response to a message."""

    seq: int = 0
    duplicate: bool = False
    error: dict[str, object] | None = None


_ack_decoder: Final = msgspec.json.Decoder(_Ack)


class StreamIngest:
    """Accepts events through the event stream. Implements the interface `Acceptance` of the service."""

    def __init__(
        self,
        stream: EventStream,
        cache: EndpointCache,
        recipients: Recipients,
        known: KnownEventFinder,
        event_ids: IdSequence,
        clock: Clock,
        counters: EngineCounters,
    ) -> None:
        self._stream = stream
        self._cache = cache
        self._recipients = recipients
        self._known = known
        self._ids = event_ids
        self._clock = clock
        self._counters = counters
        self._backlog = Backlog()
        self._accounts: dict[int, AccountBacklog] = {}
        """The accounts with unacknowledged events. Key 0 is for requests with events of several accounts."""
        self._shares = StreamShares()
        self._read_at = 0
        """When the stream state in `_shares` was read (Unix ms)."""
        self._unacknowledged: dict[str, Publication] = {}
        self._to_send: deque[Publication] = deque()
        self._group: set[str] = set()
        """The tokens of the current group's messages to which NATS has not responded yet."""
        self._group_began_at = 0
        """The time when the publisher began to send the current group (Unix ms)."""
        self._group_ended = asyncio.Event()
        """An asyncio event that is set while `_group` is empty."""
        self._group_ended.set()
        self._wake = asyncio.Event()
        self._tokens = 0
        self._link: Link | None = None
        self._inbox = ""
        self._resolving: set[asyncio.Task[None]] = set()
        self._originals = asyncio.Semaphore(ORIGINALS_AT_ONCE)
        self._closed = False
        stream.add_listener(self)

    @property
    def waiting_events(self) -> int:
        """The number of received events whose requests have no response yet."""
        return self._backlog.events

    def close(self) -> None:
        """Reject new requests. The publisher continues to send the events of earlier requests."""
        self._closed = True

    def recipients(self, account_seq: int, event_type: str, data: bytes) -> Sequence[LiveEndpoint]:
        """Return the endpoints that are subscribed to the event type and whose filter matches the data (JSON)."""
        return self._recipients.recipients(account_seq, event_type, data)

    async def endpoints_of(self, event_seqs: Collection[int]) -> dict[int, list[bytes]]:
        """Raise Unavailable, because the database may not contain the events yet."""
        del event_seqs
        raise Unavailable("the events are not in the database yet")

    def accept_for(self, drafts: Sequence[tuple[int, Draft]]) -> "asyncio.Future[list[Appended] | IdempotencyConflict]":
        """Publish the events of one request. The future resolves when the stream has stored all of them.

        Raises BacklogFull if an event has too many deliveries, and Unavailable if the queue is full or the stream is
        down. The future raises Unavailable if the stream fails. In that case, the stream may have stored some of the
        events.
        """
        events = len(drafts)
        if self._closed:
            raise self._rejected(events, Rejection.STOPPING, "the server is shutting down")
        trouble = self._stream.trouble()
        if trouble is not None:
            raise self._rejected(events, Rejection.STREAM, f"the event stream is unavailable: {trouble}")
        seq, body_bytes = drafts[0][0], 0
        for account_seq, draft in drafts:
            if len(draft.endpoints) >= GROUP_ROWS_MAX:
                raise BacklogFull(1 + len(draft.endpoints))
            if account_seq not in self._cache.accounts:
                raise self._rejected(events, Rejection.STREAM, "an account in the request was deleted")
            body_bytes += len(draft.data)
            if account_seq != seq:
                seq = 0
        # Only operators and their services send requests with several accounts, so no account's share limits them.
        if seq and self._shares.exceeds(seq):
            cause = "the event stream is nearly full, mostly with events of the account"
            raise self._rejected(events, Rejection.FULL, cause)
        account = self._accounts.get(seq) or AccountBacklog(seq)
        text = full_queue(self._backlog, account, events, 0)
        if text is not None:
            raise self._rejected(events, Rejection.FULL, text)
        self._accounts[seq] = account
        for backlog in (self._backlog, account):
            backlog.add(events, body_bytes, 0)
        request = Request(account, events, body_bytes, self._clock.now_ms(), self._clock.monotonic_us())
        traceparent = TRACEPARENT.get()
        for account_seq, draft in drafts:
            self._add(request, account_seq, draft, traceparent)
        self._wake.set()
        return request.result

    def _add(self, request: Request, account_seq: int, draft: Draft, traceparent: str | None) -> None:
        self._shares.add(account_seq, len(draft.data))
        now = request.accepted_at
        event_id = draft.id or self._ids.next(now)
        own = identify(account_seq, draft, event_id)
        request.identities.append(own)
        if own in request.events:
            return
        account = ids.prefixed(ids.ACCOUNT, self._cache.accounts[account_seq].id)
        content = encode_event(account, draft, event_id, now, traceparent)
        known = self._known.find(account_seq, draft) if may_repeat(draft) else None
        event = request.events[own] = WaitingEvent(request, account_seq, draft, event_id, own, content, known)
        request.waiting += 1
        publication = self._to_send[-1] if self._to_send else None
        if publication is None or publication.token not in self._unacknowledged or not publication.add(event):
            publication = self._new_publication(event)
        request.publications[publication.token] = publication

    def _new_publication(self, event: WaitingEvent, earlier: str = "") -> Publication:
        self._tokens += 1
        publication = Publication(str(self._tokens), event, earlier)
        self._unacknowledged[publication.token] = publication
        self._to_send.append(publication)
        return publication

    def _rejected(self, events: int, why: Rejection, text: str) -> Unavailable:
        self._counters.rejected[why] += events
        return EventStreamUnavailable(text)

    # ---- the publisher

    async def connected(self, link: Link) -> None:
        """Receive acknowledgments over a new connection, and repeat the unacknowledged messages."""
        self._inbox = link.new_inbox()
        await link.subscribe(f"{self._inbox}.*", self._note_ack)
        self._link = link
        for publication in self._unacknowledged.values():
            publication.sent_at = None
        self._to_send = deque(self._unacknowledged.values())
        self._end_group()
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Send messages until the process stops or the task is cancelled."""
        while not stopping.is_set():
            await self._wake.wait()
            if not self._group_ended.is_set():
                age_ms = self._clock.now_ms() - self._group_began_at
                await self._clock.wait(self._group_ended, max(0, GROUP_WAIT_MS_MAX - age_ms))
                self._end_group()
            self._wake.clear()
            link = self._link
            if link is None or link.closed.is_set():
                continue
            try:
                self._group_began_at = self._clock.now_ms()
                while self._to_send and self._link is link:
                    publication = self._to_send.popleft()
                    if publication.token in self._unacknowledged:
                        publication.close()
                        self._group.add(publication.token)
                        self._group_ended.clear()
                        publication.sent_at = self._clock.now_ms()
                        publication.sends += 1
                        await link.publish(
                            ACCEPTED_SUBJECT,
                            publication.payload,
                            reply=f"{self._inbox}.{publication.token}",
                            headers={MESSAGE_ID: publication.message_id},
                        )
            except StreamUnavailable:
                # The next connection, which may already exist, resends all unacknowledged messages.
                if self._link is link:
                    self._link = None

    async def watch(self, stopping: asyncio.Event) -> None:
        """Repeat unacknowledged messages and time out requests, until the process stops or the task is cancelled."""
        while True:
            await self._clock.wait(stopping, TICK_MS)
            now = self._clock.now_ms()
            self._note_reading()
            late = []
            for publication in list(self._unacknowledged.values()):
                if publication.events[0].request.accepted_at <= now - COMMIT_TIMEOUT_MS:  # the oldest request
                    for request in publication.waiting_requests:
                        if request.accepted_at <= now - COMMIT_TIMEOUT_MS:
                            self._fail(request, Rejection.STREAM, "the event stream does not respond")
                if publication.sent_at is not None and publication.sent_at <= now - RESEND_AFTER_MS:
                    publication.sent_at = None
                    late.append(publication)
            if late:
                self._to_send.extend(late)
                self._wake.set()

    def _note_reading(self) -> None:
        reading = self._stream.reading
        if reading is not None and reading.read_at != self._read_at and reading.bytes_max > 0:
            self._read_at = reading.read_at
            self._shares.note_size(reading.bytes, reading.bytes_max)

    def _note_ack(self, message: Received) -> None:
        publication = self._unacknowledged.get(message.subject.rpartition(".")[2])
        if publication is None:
            return
        self._leave_group(publication)
        try:
            ack = _ack_decoder.decode(message.data)
        except msgspec.MsgspecError:
            return  # no stream received the message, and `watch` resends it
        if ack.error is not None:
            publication.sends -= 1
            if str(ack.error.get("description", "")).startswith(_FULL):
                for request in publication.waiting_requests:
                    self._fail(request, Rejection.STREAM, "the event stream is full")
            return
        del self._unacknowledged[publication.token]
        if ack.duplicate:
            publication.duplicate_of = ack.seq
        for event in publication.events:
            request = event.request
            request.waiting -= 1
            if not request.waiting and not request.has_ended:
                self._finish(request)

    def _leave_group(self, publication: Publication) -> None:
        """Remove a message from the current group, so that later messages do not wait for its response."""
        self._group.discard(publication.token)
        if not self._group:
            self._group_ended.set()

    def _end_group(self) -> None:
        self._group.clear()
        self._group_ended.set()

    def _fail(self, request: Request, why: Rejection, text: str) -> None:
        self._end(request)
        for publication in request.publications.values():
            if not publication.is_waiting:
                self._unacknowledged.pop(publication.token, None)
                self._leave_group(publication)
        if not request.result.done():
            request.result.set_exception(self._rejected(request.event_count, why, text))

    def _finish(self, request: Request) -> None:
        """Set the result of a request after the stream has stored all its messages."""
        self._counters.stream_durations.observe_many(self._clock.monotonic_us() - request.began_us, request.event_count)
        if any(each.known is not None for each in request.events.values()):
            task = asyncio.create_task(self._resolve(request), name="repeated events")
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)
            return
        self._end(request)
        if not request.result.done():
            now = request.accepted_at
            request.result.set_result([Appended(0, each.event_id, now) for each in request.events.values()])

    def _end(self, request: Request) -> None:
        """Remove a request from the backlog."""
        request.has_ended = True
        account, events = request.account, request.event_count
        for backlog in (self._backlog, account):
            backlog.add(-events, -request.body_bytes, 0)
        if not account.events:
            self._accounts.pop(account.seq, None)

    # ---- repeats

    async def _resolve(self, request: Request) -> None:
        """Find the earlier event (if any) that each event of a request repeats. Then set the result of the request.

        Publish an event again if NATS detected a repeat, but neither the stream nor the database has the earlier event.
        """
        not_found: list[tuple[WaitingEvent, Publication]] = []
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_MS / 1000):
                await asyncio.gather(*(self._find_earlier(each) for each in request.publications.values()))
        except (TimeoutError, StreamUnavailable, StreamError) as error:
            if not request.result.done():
                text = f"the event stream has stored the events, but their IDs are unknown: {str(error) or 'timeout'}"
                request.result.set_exception(self._rejected(request.event_count, Rejection.STREAM, text))
        else:
            publications = request.publications.values()
            not_found = [(event, each) for each in publications for event in each.events if event.found is None]
            if not not_found and not request.result.done():
                request.result.set_result(request.appended())
        finally:
            if not not_found:
                self._end(request)
        self._publish_again(request, not_found)

    async def _find_earlier(self, publication: Publication) -> None:
        """For each event of a stored message, find the earlier event (if any) that it repeats.

        Find nothing for an event if NATS detected a repeat, but neither the stream nor the database has the earlier
        event. Raises StreamUnavailable or StreamError.
        """
        waiting = [each for each in publication.events if each.found is None]
        if publication.duplicate_of is None or all(each.known is None for each in waiting):
            for event in waiting:
                known = None if event.known is None else await event.known
                if known is None:
                    event.note_found(event.event_id, event.request.accepted_at)
                else:
                    event.note_found(known.id, known.created_at)
            return
        is_repeat = publication.sends == 1
        originals = await self._originals_of(publication, publication.duplicate_of)
        if originals:
            for event, (event_id, created_at) in zip(publication.events, originals, strict=True):
                event.note_found(event_id, created_at, is_repeat=is_repeat)
            return
        stored = await asyncio.gather(*(self._known.find(each.account_seq, each.draft) for each in waiting))
        for event, known in zip(waiting, stored, strict=True):
            if known is not None:
                event.note_found(known.id, known.created_at, is_repeat=is_repeat)

    def _publish_again(self, request: Request, events: Sequence[tuple[WaitingEvent, Publication]]) -> None:
        """Publish events again, with message IDs that NATS does not know. Each event comes with its earlier message.

        The earlier messages left the stream when the database stored or rejected the events. Now the database is an
        older copy, is down, or never had the events. If it has them after all, the worker discards the new messages.
        """
        again: dict[str, Publication] = {}
        """The new messages, by the token of the earlier message."""
        for event, publication in events:
            new = again.get(publication.token)
            if new is None or not new.add(event):
                # Repeats of the same event get the same new message ID, so that NATS detects them too.
                earlier = f"{publication.message_id} {publication.duplicate_of}"
                new = again[publication.token] = self._new_publication(event, earlier)
                request.publications[new.token] = new
            request.waiting += 1
        for token in again:
            del request.publications[token]
        self._wake.set()

    async def _originals_of(self, publication: Publication, seq: int) -> list[tuple[bytes, int]]:
        """Return the IDs and timestamps of the events in the message with the sequence number `seq`.

        Return an empty list if the stream no longer has the message, or if the message has another subject: emitters
        that publish to NATS can choose any message ID, even the ID of a message of the server.
        """
        link = self._link
        if link is None:
            raise StreamUnavailable("the connection to NATS is lost")
        async with self._originals:
            try:
                found = await link.call(f"STREAM.MSG.GET.{EVENTS_STREAM}", {"seq": seq})
            except StreamError as error:
                if error.code == NOT_FOUND:
                    return []
                raise
        if found["message"]["subject"] != ACCEPTED_SUBJECT:
            return []
        events = parse_accepted(base64.b64decode(found["message"].get("data", ""))) or ()
        originals = [
            (event_id, each.created_at)
            for each in events
            if isinstance(each, AcceptedEvent) and (event_id := ids.parse_uuid(each.id)) is not None
        ]
        return originals if len(originals) == len(publication.events) else []
