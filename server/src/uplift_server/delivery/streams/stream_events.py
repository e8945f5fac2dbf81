"""The events in the messages of the event stream, and what the consumer knows about each of them."""

from dataclasses import dataclass
from typing import NamedTuple

from uplift_server.core.events.stream_subjects import parse_subject
from uplift_server.delivery.ingest import Draft
from uplift_server.delivery.streams.messages import AcceptedEvent, parse_accepted
from uplift_server.delivery.streams.ports import Rejection
from uplift_server.delivery.streams.pull import StreamMessage


class Source(NamedTuple):
    """Where an event is in the stream."""

    message: StreamMessage
    account: str
    """The ID or uid of the event's account."""
    is_accepted: bool
    """Whether the server has accepted the event. Otherwise, an emitter published the event."""
    position: int = 0
    """The position of the event in its message. The first event has position 0."""
    accepted: AcceptedEvent | None = None
    """The accepted event. None if an emitter published the event, or if the message is invalid."""


@dataclass(slots=True)
class StreamEvent:
    """An event of the stream or, if the event is not valid, the rejection of the event."""

    source: Source
    account_seq: int | None = None
    draft: Draft | None = None
    rejection: Rejection | None = None
    is_done: bool = False
    """Whether the event or its rejection is stored."""


def sources(message: StreamMessage) -> list[Source]:
    """Return where the events of a message are. An invalid message counts as one event."""
    subject = parse_subject(message.subject)
    events = parse_accepted(message.data) if subject.is_accepted else None
    if events is None:
        return [Source(message, subject.account, subject.is_accepted)]
    return [Source(message, each.account, True, position, each) for position, each in enumerate(events)]
