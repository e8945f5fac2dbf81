"""Rejected events: the row that the database stores, and the message in the stream of rejected events."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from uplift_server.core.events.stream_subjects import ACCEPTED, rejected_subject
from uplift_server.core.timestamps import format_timestamp
from uplift_server.delivery.ports import Clock
from uplift_server.delivery.streams.link import HEADER_BYTES_MAX, Link, StreamError, StreamUnavailable
from uplift_server.delivery.streams.stream import REJECTED_CONFIG, EventStream, StreamUnfit
from uplift_server.delivery.streams.stream_events import StreamEvent
from uplift_server.store.rejected_events import RejectedEvent, rejected_id

RETRY_MS: Final = 500
GIVE_UP_MS: Final = 10_000
"""How long the consumer waits until NATS stores rejected events, in ms.

NATS usually elects a new leader in less time.
"""
PAUSE_MS: Final = 10_000
"""The time until the next attempt after the consumer has given up, in ms."""
_log = structlog.get_logger()


def rejected_row(event: StreamEvent, now: int) -> RejectedEvent:
    """Return the row for an event that is rejected at the time `now` (Unix ms)."""
    source, rejection = event.source, event.rejection
    assert rejection is not None
    message = source.message
    return RejectedEvent(
        id=rejected_id(message.seq, message.published_at, source.position),
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
    """Publishes rejected events to the stream of rejected events.

    That stream can be unavailable while the event stream is available. It must not stop the events of all accounts, so
    the publisher then gives up. The database still lists the rejected events.
    """

    def __init__(self, stream: EventStream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._paused_until = 0
        """The time before which the publisher makes no attempt (Unix ms). 0 unless the last attempt failed."""
        self._unpublished = 0
        """The number of rejected events that were not published since the last log entry."""

    async def publish(self, link: Link, events: Sequence[StreamEvent], stopping: asyncio.Event) -> bool:
        """Publish rejected events, or give up. Return False if the process stops first.

        Raises StreamUnavailable if the connection is lost.
        """
        now = self._clock.now_ms()
        if now < self._paused_until:
            self._unpublished += len(events)
            return True
        give_up_at = now if self._paused_until else now + GIVE_UP_MS
        while (failure := await self._attempt(link, events)) is not None:
            if link.closed.is_set():
                raise StreamUnavailable(link.cause)
            if self._clock.now_ms() >= give_up_at:
                self._unpublished += len(events)
                _log.error("rejected events not published", events=self._unpublished, cause=str(failure))
                self._paused_until, self._unpublished = self._clock.now_ms() + PAUSE_MS, 0
                return True
            await self._clock.wait(stopping, RETRY_MS)
            if stopping.is_set():
                return False
        if self._paused_until:
            _log.warning("rejected events are published again", unpublished_events=self._unpublished)
            self._paused_until = self._unpublished = 0
        return True

    async def _attempt(self, link: Link, events: Sequence[StreamEvent]) -> Exception | None:
        """Publish rejected events. Return the failure, if any."""
        try:
            # An operator can delete the stream of rejected events.
            await self._stream.create_missing(link, (REJECTED_CONFIG,))
            await asyncio.gather(*(_publish(event, link) for event in events))
        except (StreamUnavailable, StreamError, StreamUnfit) as error:
            return error
        return None


async def _publish(event: StreamEvent, link: Link) -> None:
    """Publish a rejected event to the stream of rejected events. Raises StreamUnavailable or StreamError.

    The message ID depends only on the event's place in the event stream, so NATS detects a repeat.
    """
    message, position = event.source.message, event.source.position
    message_id = f"{message.seq}-{message.published_ns}" + (f"-{position}" if position else "")
    await link.store(rejected_subject(event.source.account or ACCEPTED), _message(event, link), message_id)


def _message(event: StreamEvent, link: Link) -> bytes:
    """Return the message for a rejected event: the problem, and the event unless it is too large."""
    assert event.rejection is not None
    problem = event.rejection.problem
    payload = msgspec.json.encode({"event": _content(event), "problem": problem})
    is_small = len(payload) + HEADER_BYTES_MAX <= link.message_bytes_max
    return payload if is_small else msgspec.json.encode({"event": None, "problem": problem})


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
