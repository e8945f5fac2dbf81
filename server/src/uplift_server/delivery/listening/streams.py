"""One stream of events to a developer's machine: what it hands over next, and what was answered."""

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
from uplift_server.delivery.ports import Clock
from uplift_server.store import event_types
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.listening import ListenResponse, ListenSession, StreamedEvent, exists, next_events

LOOK_EVERY_MS: Final = 5_000
"""How often a quiet stream looks for events by itself, and any stream for its session: being told is only faster."""
UNAVAILABLE_WAIT_MS: Final = 500


class Ending(Enum):
    """Why a stream ended, as its other end is told."""

    REPLACED = "replaced"
    """The same session was connected to once more."""
    REMOVED = "removed"
    """The session was ended, its key revoked, or its account deleted."""
    STOPPING = "stopping"
    """The server is about to stop: connect again."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """An event, or a test, that may be answered."""

    event_id: bytes
    type: str
    size: int


@dataclass(frozen=True, slots=True)
class Handed:
    """What is to be sent over a stream."""

    place: int
    """The event's number; below zero, a test, which has none."""
    event_id: bytes
    type: str
    created_at: int
    body: bytes


class Stream:
    """One connection of a session."""

    def __init__(self, relay: "Streaming", session: ListenSession, place: int) -> None:
        self.session = session
        self.ending: Ending | None = None
        self.position = place
        """Every event up to this number was handed over and answered."""
        self.superseded = False
        """Another stream of the same session has begun, whose position counts instead."""
        self.answers: list[ListenResponse] = []
        """Those not written yet."""
        self._relay = relay
        self._subscription = Subscription(session.event_types)
        self._read_through = place
        self.began_at: int | None = None
        """Of a session's streams, whichever process has them, the one that began last goes on; see `listening.see`."""
        self.replaced_at = 0
        """When another began, by what was told before it was known when this one did."""
        self._seen_at = relay.clock.now_ms()
        """When its session was there at the latest (Unix ms)."""
        self._more = True
        self._unanswered: dict[int, _Sent] = {}
        self._unanswered_bytes = 0
        self._tests: dict[int, tuple[_Sent, asyncio.Future[ListenResponse]]] = {}
        """The latest that are not answered; nobody waits any more for those whose future is done."""
        self._tests_to_send: list[Handed] = []
        self._tests_made = 0
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something to send."""
        self._more = True
        self._wake.set()

    def end(self, why: Ending) -> None:
        """Let `next` return None."""
        if self.ending is None:
            self.ending = why
        self._wake.set()

    async def next(self) -> list[Handed] | None:
        """What is to be sent next, as soon as there is any and its other end has room; None once it has ended."""
        relay = self._relay
        while self.ending is None:
            self._wake.clear()
            if tests := self._awaited_tests():
                self._tests_to_send = []
                return tests
            has_room = (
                len(self._unanswered) < UNACKNOWLEDGED_EVENTS_MAX and self._unanswered_bytes < UNACKNOWLEDGED_BYTES_MAX
            )
            if self._more and has_room:
                try:
                    found = await self._read()
                except Unavailable:
                    await relay.clock.wait(self._wake, UNAVAILABLE_WAIT_MS)
                    continue
                # What ended it meanwhile may be that nobody may read this any more.
                if found and self.ending is None:
                    return found
                continue
            if not self._more:
                await relay.clock.wait(self._wake, LOOK_EVERY_MS)
                self._more = True
            else:
                await self._wake.wait()
        return None

    def hand_test(
        self, event_id: bytes, type_name: str, created_at: int, body: bytes
    ) -> "asyncio.Future[ListenResponse] | None":
        """Send an event that only this stream gets; resolves with what came of it.

        Whoever waits no longer cancels that. None where as many are awaited as may be.
        """
        if sum(not answered.done() for _, answered in self._tests.values()) >= TESTS_AWAITED_MAX:
            return None
        if len(self._tests) >= TESTS_REMEMBERED_MAX:
            del self._tests[next(each for each, (_, answered) in self._tests.items() if answered.done())]
        self._tests_made += 1
        place = -self._tests_made
        answered: asyncio.Future[ListenResponse] = asyncio.get_running_loop().create_future()
        self._tests[place] = _Sent(event_id, type_name, len(body)), answered
        self._tests_to_send = [*self._awaited_tests(), Handed(place, event_id, type_name, created_at, body)]
        self._wake.set()
        return answered

    def answered(self, place: int, answer: LocalResponse) -> None:
        """The other end has handed an event to a local server, or tried to; what is not awaited is ignored."""
        test = self._tests.pop(place, None)
        sent = self._unanswered.pop(place, None) if test is None else test[0]
        if sent is None:
            return
        stored = ListenResponse(
            event_id=sent.event_id,
            type=sent.type,
            at=self._relay.clock.now_ms(),
            status_code=answer.status_code,
            duration_ms=answer.duration_ms,
            error=answer.error,
            body=answer.body,
            redelivered=answer.redelivered,
        )
        self.answers.append(stored)
        if test is None:
            self._unanswered_bytes -= sent.size
            self.position = min(self._unanswered) - 1 if self._unanswered else self._read_through
        elif not test[1].done():
            test[1].set_result(stored)
        self._relay.note_progress(self)
        self._wake.set()

    def _awaited_tests(self) -> list[Handed]:
        """What is still to be sent of tests: not those that nobody waits for any more."""
        awaited = {place for place, (_, answered) in self._tests.items() if not answered.done()}
        return [each for each in self._tests_to_send if each.place in awaited]

    async def _read(self) -> list[Handed]:
        names = {each.seq: each.name for each in self._relay.cache.event_types_by_seq.values()}
        unwanted = [type_seq for type_seq, name in names.items() if not self._wants(name)]
        now = self._relay.clock.now_ms()
        looks = now - self._seen_at >= LOOK_EVERY_MS
        # What is told while it is read may have been stored too late to be found.
        self._more = False
        try:
            # Whoever removes the session through another process says so, which may be lost.
            if looks and not await self._relay.database.read(lambda c: exists(c, self.session)):
                self.end(Ending.REMOVED)
                return []
            self._seen_at = now if looks else self._seen_at
            stream_position = await self._relay.database.stream_position()
            stretch = await self._relay.database.read(
                lambda c: next_events(
                    c,
                    self.session.account_seq,
                    unwanted,
                    stream_position,
                    after=self._read_through,
                    limit=UNACKNOWLEDGED_EVENTS_MAX - len(self._unanswered),
                    body_bytes_max=UNACKNOWLEDGED_BYTES_MAX - self._unanswered_bytes,
                    now=now,
                )
            )
            unknown = {event.type_seq for event in stretch.items}.difference(names)
            if unknown:
                # Another process has just made them.
                found = await self._relay.database.read(lambda c: event_types.find(c, unknown))
                names.update((each.seq, each.name) for each in chain(*found))
        except BaseException:
            self._more = True
            raise
        self._more |= stretch.more
        self._read_through = stretch.key[0]
        wanted = [event for event in stretch.items if self._wants(names[event.type_seq])]
        if not self._unanswered and not wanted:
            self.position = self._read_through
        for event in wanted:
            self._unanswered[event.seq] = _Sent(event.id, names[event.type_seq], len(event.body))
            self._unanswered_bytes += len(event.body)
        return [_handed(event, names[event.type_seq]) for event in wanted]

    def _wants(self, type_name: str) -> bool:
        return type_name != WEBHOOK_CREATED and self._subscription.matches(type_name)


class Streaming(Protocol):
    """What a stream needs of the relay it belongs to."""

    database: Database
    cache: EndpointCache
    clock: Clock

    def note_progress(self, stream: Stream) -> None:
        """A stream has come further, or has an answer to be written."""


def _handed(event: StreamedEvent, type_name: str) -> Handed:
    return Handed(event.seq, event.id, type_name, event.created_at, event.body)
