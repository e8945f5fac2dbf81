"""Events in the messages of the event stream, and the results of their checks."""

from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from uplift_server.core.events.stream_subjects import emitter_account
from uplift_server.delivery.ingest import Draft
from uplift_server.delivery.streams.messages import AcceptedEvent, parse_accepted
from uplift_server.delivery.streams.ports import Rejection
from uplift_server.delivery.streams.pull import StreamMessage


class Source(NamedTuple):
    """The position of an event in the stream: its message, and its place in the message."""

    message: StreamMessage
    account: str | None
    """The ID or uid of the event's account. None if the event is from the server and is not valid."""
    content: bytes | msgspec.Raw
    """The event as its emitter published it. For an accepted event, only its data."""
    position: int = 0
    """The position of the event in its message. The first event has position 0."""
    accepted: AcceptedEvent | None = None
    """The accepted event. None if an emitter published the event, or if the event is not valid."""


@dataclass(slots=True)
class StreamEvent:
    """An event of the stream or, if the event is not valid, the rejection of the event."""

    source: Source
    account_seq: int | None = None
    draft: Draft | None = None
    rejection: Rejection | None = None
    is_done: bool = False
    """Whether the event or its rejection is stored."""
    was_rejected: bool = False
    """Whether the database contained the rejection before NATS delivered the message again."""


def sources(message: StreamMessage) -> list[Source]:
    """Return the source of each event in a message. A message that is not a list of events counts as one event."""
    account = emitter_account(message.subject)
    events = None if account is not None else parse_accepted(message.data)
    if events is None:
        return [Source(message, account, message.data)]
    return [
        Source(message, each.account, each.data, position, each)
        if isinstance(each, AcceptedEvent)
        else Source(message, None, each, position)
        for position, each in enumerate(events)
    ]
