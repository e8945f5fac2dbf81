"""A listen stream: events that the server sends to a developer's machine, and the responses to them."""

import asyncio
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import Final, Protocol

from uplift_server.core.deliveries.listening import (
    TESTS_AWAITED_MAX,
    TESTS_REMEMBERED_MAX,
    UNACKNOWLEDGED_BYTES_MAX,
    UNACKNOWLEDGED_EVENTS_MAX,
    LocalResponse,
)
from uplift_server.core.events.catalog import WEBHOOK_CREATED
from uplift_server.core.events.subscriptions import Subscription
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.ports import NEVER, Clock
from uplift_server.store import event_types
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.listening import ListenResponse, ListenSession, StreamedEvent, exists, next_events

LOOK_EVERY_MS: Final = 5_000
"""How often a stream checks for events and for the end of its session if nothing wakes the stream, in ms."""
UNAVAILABLE_WAIT_MS: Final = 500


class EndReason(Enum):
    """The reason why a stream ended, as text for the client."""

    REPLACED = "replaced"
    """The session has a newer connection."""
    REMOVED = "removed"
    """The session or its account was deleted, or its key was revoked or has expired."""
    STOPPING = "stopping"
    """The server is stopping. The client reconnects."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """An event or test event that was sent and has no response yet."""

    event_id: bytes
    type: str
    size: int


@dataclass(frozen=True, slots=True)
class StreamItem:
    """An event or test event to send over a stream."""

    position: int
    """The sequence number of the event, or a negative number for a test event."""
    event_id: bytes
    type: str
    created_at: int
    body: bytes


class Stream:
    """A connection over which the server sends the events of a listen session."""

    def __init__(self, relay: "Streaming", session: ListenSession, position: int) -> None:
        self.session = session
        self.end_reason: EndReason | None = None
        self.position = position
        """The highest sequence number up to which all events have a response."""
        self.superseded = False
        """Whether a newer stream of the session saves the position instead of this stream."""
        self.responses: list[ListenResponse] = []
        """The responses that are not saved yet."""
        self._relay = relay
        self._subscription = Subscription(session.event_types)
        self._read_through = position
        self.began_at: int | None = None
        """The time when the stream began (Unix ms).

        Across all processes, a session keeps only the stream that began last.
        """
        self.replaced_at = 0
        """The time when another stream of the session began (Unix ms), or 0.

        The relay compares this time with `began_at`, which is unknown at first.
        """
        self._seen_at = relay.clock.now_ms()
        """The time when the session was last known to exist (Unix ms)."""
        self._more = True
        self._unacknowledged: dict[int, _Sent] = {}
        self._unacknowledged_bytes = 0
        self._tests: dict[int, tuple[_Sent, asyncio.Future[ListenResponse]]] = {}
        """The test events without a response, each with the future of its caller.

        A future is done if its caller has stopped waiting.
        """
        self._tests_to_send: list[StreamItem] = []
        self._tests_sent = 0
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Wake the stream, so that it checks for events to send."""
        self._more = True
        self._wake.set()

    def end(self, why: EndReason) -> None:
        """End the stream. After the end, `next` returns None."""
        if self.end_reason is None:
            self.end_reason = why
        self._wake.set()

    async def next(self) -> list[StreamItem] | None:
        """Wait for events, and return as many events as the client has room for.

        Return None after the end of the stream.
        """
        relay = self._relay
        while self.end_reason is None:
            if relay.clock.now_ms() >= relay.cache.key_expiries.get(self.session.key_id, NEVER):
                self.end(EndReason.REMOVED)
                return None
            self._wake.clear()
            if tests := self._awaited_tests():
                self._tests_to_send = []
                return tests
            has_room = (
                len(self._unacknowledged) < UNACKNOWLEDGED_EVENTS_MAX
                and self._unacknowledged_bytes < UNACKNOWLEDGED_BYTES_MAX
            )
            if self._more and has_room:
                try:
                    found = await self._read()
                except Unavailable:
                    await relay.clock.wait(self._wake, UNAVAILABLE_WAIT_MS)
                    continue
                # Discard the events if the stream ended during the read, because the client may have lost its access.
                if found and self.end_reason is None:
                    return found
                continue
            if not self._more:
                await relay.clock.wait(self._wake, LOOK_EVERY_MS)
                self._more = True
            else:
                await relay.clock.wait(self._wake, LOOK_EVERY_MS)
        return None

    def send_test(
        self, event_id: bytes, type_name: str, created_at: int, body: bytes
    ) -> "asyncio.Future[ListenResponse] | None":
        """Send a test event over this stream. Return a future for its response.

        To stop waiting, the caller cancels the future. Return None if TESTS_AWAITED_MAX test events are already
        waiting for a response.
        """
        if sum(not future.done() for _, future in self._tests.values()) >= TESTS_AWAITED_MAX:
            return None
        if len(self._tests) >= TESTS_REMEMBERED_MAX:
            del self._tests[next(each for each, (_, future) in self._tests.items() if future.done())]
        self._tests_sent += 1
        position = -self._tests_sent
        future: asyncio.Future[ListenResponse] = asyncio.get_running_loop().create_future()
        self._tests[position] = _Sent(event_id, type_name, len(body)), future
        self._tests_to_send = [*self._awaited_tests(), StreamItem(position, event_id, type_name, created_at, body)]
        self._wake.set()
        return future

    def record_response(self, position: int, response: LocalResponse) -> None:
        """Record the response of the developer's local server to an event or test event.

        Ignore the response if no event or test event at `position` waits for a response.
        """
        test = self._tests.pop(position, None)
        sent = self._unacknowledged.pop(position, None) if test is None else test[0]
        if sent is None:
            return
        stored = ListenResponse(
            event_id=sent.event_id,
            type=sent.type,
            at=self._relay.clock.now_ms(),
            status_code=response.status_code,
            duration_ms=response.duration_ms,
            error=response.error,
            body=response.body,
            redelivered=response.redelivered,
        )
        self.responses.append(stored)
        if test is None:
            self._unacknowledged_bytes -= sent.size
            self.position = min(self._unacknowledged) - 1 if self._unacknowledged else self._read_through
        elif not test[1].done():
            test[1].set_result(stored)
        self._relay.note_progress(self)
        self._wake.set()

    def _awaited_tests(self) -> list[StreamItem]:
        """Return the test events that are not sent yet and whose callers are still waiting."""
        awaited = {position for position, (_, future) in self._tests.items() if not future.done()}
        return [each for each in self._tests_to_send if each.position in awaited]

    async def _read(self) -> list[StreamItem]:
        names = {each.seq: each.name for each in self._relay.cache.event_types_by_seq.values()}
        unmatched = [type_seq for type_seq, name in names.items() if not self._matches(name)]
        now = self._relay.clock.now_ms()
        looks = now - self._seen_at >= LOOK_EVERY_MS
        # Clear `_more` before the read, because a wake-up during the read may be for an event that the read misses.
        self._more = False
        try:
            # A notification from another process about a deleted session may have been lost.
            if looks and not await self._relay.database.read(lambda c: exists(c, self.session)):
                self.end(EndReason.REMOVED)
                return []
            self._seen_at = now if looks else self._seen_at
            stream_position = await self._relay.database.stream_position()
            batch = await self._relay.database.read(
                lambda c: next_events(
                    c,
                    self.session.account_seq,
                    unmatched,
                    stream_position,
                    after=self._read_through,
                    limit=UNACKNOWLEDGED_EVENTS_MAX - len(self._unacknowledged),
                    body_bytes_max=UNACKNOWLEDGED_BYTES_MAX - self._unacknowledged_bytes,
                    now=now,
                )
            )
            unknown = {event.type_seq for event in batch.items}.difference(names)
            if unknown:
                # Another process has just created these event types.
                found = await self._relay.database.read(lambda c: event_types.find(c, unknown))
                names.update((each.seq, each.name) for each in chain(*found))
        except BaseException:
            self._more = True
            raise
        self._more |= batch.more
        self._read_through = batch.key[0]
        matched = [event for event in batch.items if self._matches(names[event.type_seq])]
        if not self._unacknowledged and not matched:
            self.position = self._read_through
        for event in matched:
            self._unacknowledged[event.seq] = _Sent(event.id, names[event.type_seq], len(event.body))
            self._unacknowledged_bytes += len(event.body)
        return [_item(event, names[event.type_seq]) for event in matched]

    def _matches(self, type_name: str) -> bool:
        return type_name != WEBHOOK_CREATED and self._subscription.matches(type_name)


class Streaming(Protocol):
    """The interface through which streams use the relay's database, cache and clock, and save their progress."""

    database: Database
    cache: EndpointCache
    clock: Clock

    def note_progress(self, stream: Stream) -> None:
        """Include a stream's position and responses in the next save."""


def _item(event: StreamedEvent, type_name: str) -> StreamItem:
    return StreamItem(event.seq, event.id, type_name, event.created_at, event.body)
