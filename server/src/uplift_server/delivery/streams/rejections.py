"""Rejected events: the row that the database stores, and the message in the stream of rejected events."""

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import structlog

from uplift_server.core.events.rejected import stored_text
from uplift_server.core.events.stream_subjects import ACCEPTED, rejected_subject
from uplift_server.core.timestamps import format_timestamp
from uplift_server.delivery.ports import Clock
from uplift_server.delivery.streams.link import HEADER_BYTES_MAX, Link, log_fields
from uplift_server.delivery.streams.progress import Progress
from uplift_server.delivery.streams.stream import REJECTED_CONFIG, EventStream
from uplift_server.delivery.streams.stream_events import Source, StreamEvent
from uplift_server.store.rejected_events import RejectedEvent, rejected_id

RETRY_MS_MIN: Final = 500
RETRY_MS_MAX: Final = 2_000
LOG_EVERY_MS: Final = 10_000
AT_ONCE_MAX: Final = 100
"""The maximum number of rejected events that the publisher sends before it waits for their acknowledgments."""
WAITING_EVENTS_MAX: Final = 10_000
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
_log = structlog.get_logger()


class _Message(NamedTuple):
    """A message for the stream of rejected events."""

    subject: str
    payload: bytes
    message_id: str
    """The ID by which NATS detects repeats. It depends only on the event's place in the event stream."""
    source: Source
    """The position of the event in the event stream, without its content."""


def row_id(event: StreamEvent) -> bytes:
    """Return the ID of the row for an event, if the event is rejected. The ID is the same in each delivery."""
    message = event.source.message
    return rejected_id(message.seq, message.published_at, event.source.position)


def rejected_row(event: StreamEvent, now: int) -> RejectedEvent:
    """Return the row for an event that is rejected at the time `now` (Unix ms)."""
    source, rejection = event.source, event.rejection
    assert rejection is not None
    message = source.message
    return RejectedEvent(
        id=row_id(event),
        account_seq=event.account_seq,
        subject=message.subject,
        event_type=rejection.event_type,
        event_id=rejection.event_id,
        idempotency_key=rejection.idempotency_key,
        problem=rejection.problem,
        size_bytes=len(source.content),
        stream_seq=message.seq,
        published_at=message.published_at,
        rejected_at=now,
    )


class RejectionPublisher:
    """Publishes rejected events while the consumer stores the next events.

    The stream of rejected events can be unavailable while the event stream is available. The messages of rejected
    events stay in the event stream until the rejected events are published, because the database has no copy of their
    data.
    """

    def __init__(self, progress: Progress, link: Link, stream: EventStream, clock: Clock) -> None:
        self._progress = progress
        self._link = link
        self._stream = stream
        self._clock = clock
        self._waiting: deque[_Message] = deque()
        self._bytes = 0
        """The size of the waiting messages, in bytes."""
        self._task: asyncio.Task[None] | None = None
        """The task that publishes the waiting events."""
        self._has_checked = False
        """Whether the stream of rejected events exists and has the required settings."""
        self._failed_at: int | None = None
        """The time of the latest log entry about a failure (Unix ms). None if the latest attempt succeeded."""

    @property
    def is_full(self) -> bool:
        """Whether so many rejected events are waiting that the consumer must wait."""
        return len(self._waiting) >= WAITING_EVENTS_MAX or self._bytes >= WAITING_BYTES_MAX

    def add(self, events: Sequence[StreamEvent]) -> None:
        """Publish rejected events in the background. Repeat failed attempts until the connection ends."""
        messages = [_message(each, self._link.message_bytes_max) for each in events]
        self._waiting.extend(messages)
        self._bytes += sum(len(each.payload) for each in messages)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._publish_all(), name="publication of rejected events")

    def close(self) -> None:
        """Stop publishing. The next consumer receives the messages of the waiting events again."""
        if self._task is not None:
            self._task.cancel()

    async def _publish_all(self) -> None:
        wait_ms = RETRY_MS_MIN
        while self._waiting and not self._link.closed.is_set():
            failure = await self._attempt()
            if failure is None:
                wait_ms = RETRY_MS_MIN
                if self._failed_at is not None:
                    _log.warning("publication of rejected events recovered")
                self._failed_at = None
                continue
            now = self._clock.now_ms()
            if self._failed_at is None or now - self._failed_at >= LOG_EVERY_MS:
                _log.error("rejected events not published", events=len(self._waiting), **log_fields(failure))
                self._failed_at = now
            await self._clock.wait(self._link.closed, wait_ms)
            wait_ms = min(2 * wait_ms, RETRY_MS_MAX)

    async def _attempt(self) -> Exception | None:
        """Publish the first waiting messages. Messages that fail wait behind the others. Return a failure, if any."""
        if not self._has_checked:
            try:
                await self._stream.check(self._link, REJECTED_CONFIG)
            except Exception as error:  # A defect must not end the publication.
                return error
            self._has_checked = True
        messages = list(itertools.islice(self._waiting, AT_ONCE_MAX))
        stored = (self._link.store(each.subject, each.payload, each.message_id) for each in messages)
        results = await asyncio.gather(*stored, return_exceptions=True)
        failure: Exception | None = None
        for message, result in zip(messages, results, strict=True):
            self._waiting.popleft()
            if isinstance(result, Exception):
                failure = result
                self._waiting.append(message)
                # An operator can delete the stream of rejected events. The next attempt then creates the stream again.
                self._has_checked = False
            else:
                self._bytes -= len(message.payload)
                self._progress.note_done(message.source)
        return failure


def _message(event: StreamEvent, message_bytes_max: int) -> _Message:
    """Return the message for a rejected event: the event ID, the problem, and the event unless it is too large."""
    assert event.rejection is not None
    source, rejection = event.source, event.rejection
    event_id = None if rejection.event_id is None else stored_text(rejection.event_id)
    fields = {"event": _content(event), "event_id": event_id, "problem": rejection.problem}
    payload = msgspec.json.encode(fields)
    if len(payload) + HEADER_BYTES_MAX > message_bytes_max:
        payload = msgspec.json.encode({**fields, "event": None})
    message, position = source.message, source.position
    message_id = f"{message.seq}-{message.published_ns}" + (f"-{position}" if position else "")
    without_content = source._replace(message=message._replace(data=b""), content=b"", accepted=None)
    return _Message(rejected_subject(source.account or ACCEPTED), payload, message_id, without_content)


def _content(event: StreamEvent) -> object:
    """Return the content of an event as its emitter sent it. If the content is not JSON, return it as a string."""
    accepted, content = event.source.accepted, event.source.content
    if accepted is not None:
        fields = {
            "type": accepted.type,
            "data": accepted.data,
            "id": accepted.id if accepted.chose_id else None,
            "idempotency_key": accepted.idempotency_key,
            "ordering_key": accepted.ordering_key,
            "expires_at": None if accepted.expires_at is None else format_timestamp(accepted.expires_at),
        }
        return {name: value for name, value in fields.items() if value is not None}
    try:
        msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return bytes(content).decode("utf-8", "replace")
    return msgspec.Raw(content)
