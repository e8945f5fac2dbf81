"""Rejected events: the row that the database stores, and the message in the stream of rejected events."""

import msgspec

from uplift_server.core.events.stream_subjects import ACCEPTED, rejected_subject
from uplift_server.core.timestamps import format_timestamp
from uplift_server.delivery.streams.link import HEADER_BYTES_MAX, Link
from uplift_server.delivery.streams.stream_events import StreamEvent
from uplift_server.store.rejected_events import RejectedEvent, rejected_id


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


async def publish_rejected(event: StreamEvent, link: Link) -> None:
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
