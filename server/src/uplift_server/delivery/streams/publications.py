"""The messages that the API publishes, and the requests that wait for their acknowledgments."""

import asyncio
from typing import Final

from uplift_server.core.limits import STREAM_SHARED_DATA_BYTES_MAX, STREAM_SHARED_MESSAGE_BYTES_MAX
from uplift_server.delivery.backlog import Backlog
from uplift_server.delivery.ingest import Draft
from uplift_server.delivery.streams.messages import join_events, may_repeat, message_id
from uplift_server.store.hot_records import Appended, IdempotencyConflict
from uplift_server.store.repeated_events import StoredEvent

EVENT_OVERHEAD_BYTES: Final = 256
"""The assumed size of an event's other fields, in bytes."""


class AccountBacklog(Backlog):
    """An account's events that the stream has not acknowledged yet."""

    __slots__ = ("seq",)

    def __init__(self, seq: int) -> None:
        """`seq` is the account's sequence number, or 0 for requests with events of several accounts."""
        super().__init__()
        self.seq = seq


class WaitingEvent:
    """An event of a request that waits for the acknowledgment of its message."""

    __slots__ = ("account_seq", "content", "draft", "event_id", "found", "identity", "known", "request")

    def __init__(
        self,
        request: "Request",
        account_seq: int,
        draft: Draft,
        event_id: bytes,
        identity: str,
        content: bytes,
        known: "asyncio.Future[StoredEvent | None] | None",
    ) -> None:
        self.request = request
        self.account_seq = account_seq
        self.draft = draft
        self.event_id = event_id
        self.identity = identity
        """A text that is the same for this event and its repeats."""
        self.content = content
        """The event in the message."""
        self.known = known
        """The database lookup of an earlier event that this event may repeat.

        None if the caller chose neither an idempotency key nor an ID.
        """
        self.found: Appended | None = None
        """The result for this event: the new event, or the earlier event that it repeats."""

    def note_found(self, event_id: bytes, created_at: int, *, is_repeat: bool = False) -> None:
        """Set the ID and timestamp of the stored event: this event, or an earlier event that it repeats.

        If `is_repeat` is false, the event is a repeat only if the ID or the timestamp differs.
        """
        is_new = not is_repeat and (event_id, created_at) == (self.event_id, self.request.accepted_at)
        self.found = Appended(0, event_id, created_at, duplicate=not is_new)


def _data_bytes(event: WaitingEvent) -> int:
    """Return the size of an event in a message, in bytes, without the parts that can differ between repeats."""
    draft = event.draft
    keys = len(draft.idempotency_key or "") + len(draft.ordering_key or "")
    return EVENT_OVERHEAD_BYTES + len(draft.data) + keys


class Publication:
    """A message that waits for its acknowledgment."""

    __slots__ = (
        "_content_bytes",
        "_data_bytes",
        "_earlier",
        "_may_repeat",
        "duplicate_of",
        "events",
        "message_id",
        "payload",
        "sends",
        "sent_at",
        "token",
    )

    def __init__(self, token: str, event: WaitingEvent, earlier: str = "") -> None:
        """`earlier` identifies the message that NATS detected as a repeat. Empty for the first message."""
        self.token = token
        self.events = [event]
        self._data_bytes = _data_bytes(event)
        self._content_bytes = len(event.content)
        self._may_repeat = may_repeat(event.draft)
        self._earlier = earlier
        self.message_id = ""
        self.payload = b""
        """The content of the message. Empty until the publisher sends the message for the first time."""
        self.sent_at: int | None = None
        """The time when the message was sent (Unix ms), or None while it waits for the connection."""
        self.sends = 0
        """How many times the message was sent and may have been stored. NATS detects a resent message as a repeat."""
        self.duplicate_of: int | None = None
        """The sequence number of the earlier message, if NATS detected this message as a repeat."""

    def add(self, event: WaitingEvent) -> bool:
        """Add the next event to the message. Return False if the event needs another message.

        An event that can be a repeat shares a message only with such events of the same request, because NATS detects a
        repeat only if the whole message is the same.
        """
        is_other = may_repeat(event.draft) != self._may_repeat or (
            self._may_repeat and event.request is not self.events[0].request
        )
        data_bytes = self._data_bytes + _data_bytes(event)
        content_bytes = self._content_bytes + len(event.content)
        is_full = data_bytes > STREAM_SHARED_DATA_BYTES_MAX or content_bytes > STREAM_SHARED_MESSAGE_BYTES_MAX
        if self.payload or is_other or is_full:
            return False
        self.events.append(event)
        self._data_bytes, self._content_bytes = data_bytes, content_bytes
        return True

    def close(self) -> None:
        """Set the content and the ID of the message, without the events of failed requests."""
        if not self.payload:
            self.events = [each for each in self.events if not each.request.has_ended]
            self.payload = join_events([each.content for each in self.events])
            # The IDs of new events are unique, so one is enough.
            identities = [each.identity for each in (self.events if self._may_repeat else self.events[:1])]
            self.message_id = message_id([self._earlier, *identities] if self._earlier else identities)
            if not self._may_repeat:
                for event in self.events:
                    event.content = b""  # only events that can be a repeat are published again

    @property
    def is_waiting(self) -> bool:
        """Whether any request with an event in the message has neither succeeded nor failed yet."""
        # Requests fail in order, so this loop usually ends with the last event.
        return any(not each.request.has_ended for each in reversed(self.events))

    @property
    def waiting_requests(self) -> list["Request"]:
        """The requests with events in the message that have neither succeeded nor failed yet."""
        requests = {id(each.request): each.request for each in self.events if not each.request.has_ended}
        return list(requests.values())


class Request:
    """An API request whose events wait for their acknowledgments."""

    __slots__ = (
        "accepted_at",
        "account",
        "began_us",
        "body_bytes",
        "event_count",
        "events",
        "has_ended",
        "identities",
        "publications",
        "result",
        "waiting",
    )

    def __init__(self, account: AccountBacklog, event_count: int, body_bytes: int, now: int, began_us: int) -> None:
        """`now` is the time of acceptance (Unix ms), and `began_us` the same moment on the monotonic clock."""
        self.account = account
        self.event_count = event_count
        """The number of events in the request, including repeated events."""
        self.body_bytes = body_bytes
        self.accepted_at = now
        self.began_us = began_us
        self.events: dict[str, WaitingEvent] = {}
        """The events to publish, by identity. If the request repeats an event, only the first is published."""
        self.identities: list[str] = []
        """The identity of each event in the request."""
        self.publications: dict[str, Publication] = {}
        """The messages with the events of the request, by token."""
        self.waiting = 0
        """The number of events whose messages have no acknowledgment yet."""
        self.has_ended = False
        """Whether the request has left the backlog."""
        self.result: asyncio.Future[list[Appended] | IdempotencyConflict] = asyncio.get_running_loop().create_future()

    def appended(self) -> list[Appended]:
        """Return the results for the events of the request, in order. All events must have been found."""
        results: list[Appended] = []
        seen: set[str] = set()
        for identity in self.identities:
            found = self.events[identity].found
            assert found is not None
            results.append(found._replace(duplicate=True) if identity in seen else found)
            seen.add(identity)
        return results
