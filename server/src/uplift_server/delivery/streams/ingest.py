"""Ingest through the event stream: an event is accepted when the replicated stream has stored its message.

The publisher sends messages in acceptance order and in groups: while NATS stores a group, the next messages wait, and
they form the next group. Replicating a group takes little more work than replicating a single message. The publisher
repeats an unacknowledged message with the same message ID until the request times out. NATS stores the message only
once.
"""

import asyncio
import base64
import hashlib
from collections import deque
from collections.abc import Collection, Sequence
from typing import Final, Protocol

import msgspec
import structlog

from uplift_server.core import ids
from uplift_server.core.events.stream_shares import StreamShares
from uplift_server.core.events.stream_subjects import EVENTS_STREAM, accepted_subject
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
    accepted_message,
    may_repeat,
    message_id,
    parse_accepted,
)
from uplift_server.delivery.streams.publications import AccountBacklog, Publication, Request
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
        request = Request(account, drafts, body_bytes, self._clock.now_ms(), self._clock.monotonic_us())
        traceparent = TRACEPARENT.get()
        for account_seq, draft in drafts:
            self._add(request, account_seq, draft, traceparent)
        self._wake.set()
        return request.result

    def _add(self, request: Request, account_seq: int, draft: Draft, traceparent: str | None) -> None:
        self._shares.add(account_seq, len(draft.data))
        now = request.accepted_at
        event_id = draft.id or self._ids.next(now)
        account = self._cache.accounts[account_seq]
        self._tokens += 1
        publication = Publication(
            request,
            (account_seq, draft),
            str(self._tokens),
            accepted_subject(ids.prefixed(ids.ACCOUNT, account.id)),
            accepted_message(draft, event_id, now, traceparent),
            event_id,
            message_id(account_seq, draft, event_id),
        )
        if may_repeat(draft):
            publication.known = self._known.find(account_seq, draft)
        request.publications.append(publication)
        self._unacknowledged[publication.token] = publication
        self._to_send.append(publication)

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
                        self._group.add(publication.token)
                        self._group_ended.clear()
                        publication.sent_at = self._clock.now_ms()
                        reply = f"{self._inbox}.{publication.token}"
                        await link.publish(
                            publication.subject, publication.payload, reply=reply, headers=publication.headers
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
                if publication.token not in self._unacknowledged:
                    continue  # The request of this message has just failed.
                if publication.request.accepted_at <= now - COMMIT_TIMEOUT_MS:
                    self._fail(publication.request, Rejection.STREAM, "the event stream does not respond")
                elif publication.sent_at is not None and publication.sent_at <= now - RESEND_AFTER_MS:
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
            if str(ack.error.get("description", "")).startswith(_FULL):
                self._fail(publication.request, Rejection.STREAM, "the event stream is full")
            return
        del self._unacknowledged[publication.token]
        if ack.duplicate:
            publication.duplicate_of = ack.seq
        request = publication.request
        request.waiting -= 1
        if not request.waiting:
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
        for publication in request.publications:
            self._unacknowledged.pop(publication.token, None)
            self._leave_group(publication)
        self._end(request)
        if not request.result.done():
            request.result.set_exception(self._rejected(len(request.drafts), why, text))

    def _finish(self, request: Request) -> None:
        """Set the result of a request after the stream has stored all its messages."""
        self._counters.stream_durations.observe_many(self._clock.monotonic_us() - request.began_us, len(request.drafts))
        if any(each.known is not None for each in request.publications):
            task = asyncio.create_task(self._resolve(request), name="repeated events")
            self._resolving.add(task)
            task.add_done_callback(self._resolving.discard)
            return
        self._end(request)
        if not request.result.done():
            now = request.accepted_at
            request.result.set_result([Appended(0, each.event_id, now) for each in request.publications])

    def _end(self, request: Request) -> None:
        """Remove a request from the backlog."""
        account, events = request.account, len(request.drafts)
        for backlog in (self._backlog, account):
            backlog.add(-events, -request.body_bytes, 0)
        if not account.events:
            self._accounts.pop(account.seq, None)

    # ---- repeats

    async def _resolve(self, request: Request) -> None:
        """Find the earlier event (if any) that each event of a request repeats. Then set the result of the request.

        Publish an event again if NATS detected a repeat, but neither the stream nor the database has the earlier event.
        """
        not_found: list[Publication] = []
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_MS / 1000):
                results = await asyncio.gather(*(self._appended(each) for each in request.publications))
        except (TimeoutError, StreamUnavailable, StreamError) as error:
            if not request.result.done():
                text = f"the event stream has stored the events, but their IDs are unknown: {str(error) or 'timeout'}"
                request.result.set_exception(self._rejected(len(request.drafts), Rejection.STREAM, text))
        else:
            for publication, found in zip(request.publications, results, strict=True):
                publication.found = found
            not_found = [each for each in request.publications if each.found is None]
            if not not_found and not request.result.done():
                request.result.set_result([found for found in results if found is not None])
        finally:
            if not not_found:
                self._end(request)
        self._publish_again(not_found)

    async def _appended(self, publication: Publication) -> Appended | None:
        """Return the new event, or the earlier event that the new event repeats.

        Return None if NATS detected a repeat, but neither the stream nor the database has the earlier event. Raises
        StreamUnavailable or StreamError.
        """
        if publication.found is not None:
            return publication.found
        new = Appended(0, publication.event_id, publication.request.accepted_at)
        if publication.known is None:
            return new
        if publication.duplicate_of is None:
            known = await publication.known
            return new if known is None else _earlier(new, known.id, known.created_at)
        original = await self._original(publication, publication.duplicate_of)
        if original is not None:
            return _earlier(new, *original)
        known = await self._known.find(*publication.event)
        return None if known is None else _earlier(new, known.id, known.created_at)

    def _publish_again(self, publications: Sequence[Publication]) -> None:
        """Publish events again, with message IDs that NATS does not know.

        Their earlier messages left the stream when the database stored or rejected the events. Now the database is an
        older copy, is down, or never had the events. If it has them after all, the worker discards the new messages.
        """
        for publication in publications:
            # With another token, a late acknowledgment of the earlier message has no effect.
            self._tokens += 1
            publication.token = str(self._tokens)
            # Repeats of the same event get the same new message ID, so that NATS detects them too.
            earlier = f"{publication.headers[MESSAGE_ID]} {publication.duplicate_of}"
            publication.headers = {MESSAGE_ID: hashlib.sha256(earlier.encode()).hexdigest()}
            publication.duplicate_of = publication.sent_at = None
            publication.request.waiting += 1
            self._unacknowledged[publication.token] = publication
            self._to_send.append(publication)
        self._wake.set()

    async def _original(self, publication: Publication, seq: int) -> tuple[bytes, int] | None:
        """Return the ID and timestamp of the event in the message with the sequence number `seq`.

        Return None if the stream no longer has the message, or if the message has another subject: emitters that
        publish to NATS can choose any message ID, even the ID of another account's event.
        """
        link = self._link
        if link is None:
            raise StreamUnavailable("the connection to NATS is lost")
        async with self._originals:
            try:
                found = await link.call(f"STREAM.MSG.GET.{EVENTS_STREAM}", {"seq": seq})
            except StreamError as error:
                if error.code == NOT_FOUND:
                    return None
                raise
        if found["message"]["subject"] != publication.subject:
            return None
        message = parse_accepted(base64.b64decode(found["message"].get("data", "")))
        event_id = None if message is None else ids.parse_uuid(message.id)
        return None if message is None or event_id is None else (event_id, message.created_at)


def _earlier(new: Appended, event_id: bytes, created_at: int) -> Appended:
    """Return the event with this ID and timestamp, marked as a duplicate unless it is `new`."""
    is_new = (event_id, created_at) == (new.id, new.created_at)
    return new if is_new else Appended(0, event_id, created_at, duplicate=True)
