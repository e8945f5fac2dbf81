"""The relay: streams of events to developers' machines, over connections that they opened.

A stream reads the store from its own place on, as far ahead as its other end answers, so nothing has to be kept for it
and nobody else waits for it. What is known of its place in memory is written now and then; whoever reconnects says
where they were, which is exact.
"""

import asyncio
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import Final

import structlog

from uplift_server.core.catalog import WEBHOOK_CREATED
from uplift_server.core.listening import (
    TESTS_AWAITED_MAX,
    TESTS_REMEMBERED_MAX,
    UNANSWERED_BYTES_MAX,
    UNANSWERED_EVENTS_MAX,
    UNUSED_EXPIRES_AFTER_MS,
    Answer,
)
from uplift_server.core.subscriptions import Subscription
from uplift_server.delivery.clock import Clock
from uplift_server.delivery.directory import Directory
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.listening import (
    Fed,
    ListenSession,
    StoredAnswer,
    delete_unused,
    feed,
    save_progress,
    see,
    unused,
)

_log = structlog.get_logger()

SAVE_EVERY_MS: Final = 500
CLEAN_EVERY_MS: Final = 3_600_000
CLEAN_BITE: Final = 100
LOOK_EVERY_MS: Final = 5_000
"""How often a quiet stream looks for events by itself: being told of them is only faster."""
UNAVAILABLE_WAIT_MS: Final = 500
STREAMS_MAX: Final = 200
"""Streams at a time in this process."""


class Ending(Enum):
    """Why a stream ended, as its other end is told."""

    REPLACED = "replaced"
    """The same session was connected to once more."""
    REMOVED = "removed"
    """The session was ended, its key revoked, or its account deleted."""
    STOPPING = "stopping"
    """The server is about to stop: connect again."""


class SessionGone(Exception):
    """The session was removed before its stream began, or its key revoked, or its account deleted."""


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

    def __init__(self, relay: "Relay", session: ListenSession, place: int) -> None:
        self.session = session
        self.ending: Ending | None = None
        self.position = place
        """Every event up to this number was handed over and answered."""
        self.superseded = False
        """Another stream of the same session has begun, whose position counts instead."""
        self.answers: list[StoredAnswer] = []
        """Those not written yet."""
        self._relay = relay
        self._subscription = Subscription(session.event_types)
        self._read_through = place
        self._more = True
        self._unanswered: dict[int, _Sent] = {}
        self._unanswered_bytes = 0
        self._tests: dict[int, tuple[_Sent, asyncio.Future[StoredAnswer]]] = {}
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
            has_room = len(self._unanswered) < UNANSWERED_EVENTS_MAX and self._unanswered_bytes < UNANSWERED_BYTES_MAX
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
    ) -> "asyncio.Future[StoredAnswer] | None":
        """Send an event that only this stream gets; resolves with what came of it.

        Whoever waits no longer cancels that. None where as many are awaited as may be.
        """
        if sum(not answered.done() for _, answered in self._tests.values()) >= TESTS_AWAITED_MAX:
            return None
        if len(self._tests) >= TESTS_REMEMBERED_MAX:
            del self._tests[next(each for each, (_, answered) in self._tests.items() if answered.done())]
        self._tests_made += 1
        place = -self._tests_made
        answered: asyncio.Future[StoredAnswer] = asyncio.get_running_loop().create_future()
        self._tests[place] = _Sent(event_id, type_name, len(body)), answered
        self._tests_to_send = [*self._awaited_tests(), Handed(place, event_id, type_name, created_at, body)]
        self._wake.set()
        return answered

    def answered(self, place: int, answer: Answer) -> None:
        """The other end has handed an event to a local server, or tried to; what is not awaited is ignored."""
        test = self._tests.pop(place, None)
        sent = self._unanswered.pop(place, None) if test is None else test[0]
        if sent is None:
            return
        stored = StoredAnswer(
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
        directory = self._relay.directory
        wanted = {
            each.seq: each.name
            for each in directory.event_types_by_seq.values()
            if each.name != WEBHOOK_CREATED and self._subscription.wants(each.name)
        }
        now = self._relay.clock.now_ms()
        # What is told while it is read may have been stored too late to be found.
        self._more = False
        try:
            stretch = await self._relay.database.read(
                lambda c: feed(
                    c,
                    self.session.account_seq,
                    list(wanted),
                    after=self._read_through,
                    limit=UNANSWERED_EVENTS_MAX - len(self._unanswered),
                    body_bytes_max=UNANSWERED_BYTES_MAX - self._unanswered_bytes,
                    now=now,
                )
            )
        except BaseException:
            self._more = True
            raise
        self._more |= stretch.more
        self._read_through = stretch.key[0]
        if not self._unanswered and not stretch.items:
            self.position = self._read_through
        for event in stretch.items:
            self._unanswered[event.seq] = _Sent(event.id, wanted[event.type_seq], len(event.body))
            self._unanswered_bytes += len(event.body)
        return [_handed(event, wanted[event.type_seq]) for event in stretch.items]


_Progress = tuple[Stream, int | None, list[StoredAnswer]]
"""How far a stream has come, and what was answered since that was last written."""


class Relay:
    """All streams of this process."""

    def __init__(self, database: Database, directory: Directory, clock: Clock) -> None:
        self.database = database
        self.directory = directory
        self.clock = clock
        self.listened: dict[int, set[Stream]] = {}
        """By account, the streams to be told of its events."""
        self._streams: dict[bytes, Stream] = {}
        self._progressed: dict[Stream, None] = {}
        self._wake = asyncio.Event()
        self._stopping = False

    def note_accepted(self, account_seq: int) -> None:
        """Events of an account were stored."""
        for stream in self.listened.get(account_seq, ()):
            stream.wake()

    async def connect(self, session: ListenSession, place: int | None) -> Stream | None:
        """Begin a session's stream behind a number, or where it was; None where there are too many streams.

        Another stream of the same session ends. Raises SessionGone, and Unavailable.
        """
        stream = self._begin(session, place)
        if stream is None:
            return None
        # Whoever removes the session from now on, or revokes its key, ends this stream; that nobody did so before, the
        # database tells. It tells those who remove what nobody uses that somebody does.
        now = self.clock.now_ms()
        try:
            if not await self.database.write(lambda c: see(c, session, now=now)):
                raise SessionGone
        except BaseException:
            self.disconnect(stream)
            raise
        return stream

    def _begin(self, session: ListenSession, place: int | None) -> Stream | None:
        earlier = self._streams.get(session.id)
        if earlier is None and len(self._streams) >= STREAMS_MAX:
            return None
        if earlier is not None:
            self.disconnect(earlier)
            earlier.end(Ending.REPLACED)
        unwritten = [each for each in self._progressed if each.session.id == session.id and not each.superseded]
        known = max([session.position, *(each.position for each in unwritten)])
        for each in unwritten:
            each.superseded = True
        stream = Stream(self, session, known if place is None else place)
        if self._stopping:
            stream.end(Ending.STOPPING)
        self._streams[session.id] = stream
        self.listened.setdefault(session.account_seq, set()).add(stream)
        self.note_progress(stream)
        return stream

    def disconnect(self, stream: Stream) -> None:
        """A stream's connection is over."""
        self.note_progress(stream)
        if self._streams.get(stream.session.id) is stream:
            del self._streams[stream.session.id]
        of_account = self.listened.get(stream.session.account_seq)
        if of_account is not None:
            of_account.discard(stream)
            if not of_account:
                del self.listened[stream.session.account_seq]

    def stream_of(self, session_id: bytes) -> Stream | None:
        """The stream of a session that is connected."""
        return self._streams.get(session_id)

    def note_progress(self, stream: Stream) -> None:
        """A stream's place is to be written."""
        self._progressed[stream] = None
        self._wake.set()

    def end(self, session_id: bytes) -> None:
        """A session was removed."""
        stream = self._streams.get(session_id)
        if stream is not None:
            stream.end(Ending.REMOVED)

    def end_of_key(self, key_id: bytes) -> None:
        """A key was revoked: the streams opened with it end."""
        for stream in self._streams.values():
            if stream.session.key_id == key_id:
                stream.end(Ending.REMOVED)

    def end_of_account(self, account_seq: int) -> None:
        """An account was deleted: its streams end."""
        for stream in self.listened.get(account_seq, ()):
            stream.end(Ending.REMOVED)

    def stop(self) -> None:
        """End all streams; their other ends connect again."""
        self._stopping = True
        for stream in self._streams.values():
            stream.end(Ending.STOPPING)

    async def run(self, stopping: asyncio.Event) -> None:
        """Write how far streams have come, and remove sessions that nobody uses, until stopped."""
        cleaned_at = self.clock.now_ms()
        while not stopping.is_set():
            self._wake.clear()
            if self._progressed:
                await self.clock.wait(stopping, SAVE_EVERY_MS)
            else:
                await self.clock.wait(self._wake, CLEAN_EVERY_MS)
            try:
                await self.save()
                if self.clock.now_ms() - cleaned_at >= CLEAN_EVERY_MS:
                    cleaned_at = self.clock.now_ms()
                    await self._clean(stopping)
            except Unavailable:
                await self.clock.wait(stopping, UNAVAILABLE_WAIT_MS)

    async def save(self) -> None:
        """Write how far streams have come. Raises Unavailable, and tries again at the next call."""
        streams = list(self._progressed)
        self._progressed.clear()
        if not streams:
            return
        taken = [(stream, None if stream.superseded else stream.position, stream.answers) for stream in streams]
        for stream in streams:
            stream.answers = []
        now = self.clock.now_ms()
        batches = [taken]
        while batches:
            batch = batches.pop(0)
            rows = [(stream.session, position, answers) for stream, position, answers in batch]
            try:
                # B023: it is run before the next turn.
                await self.database.write(lambda c: save_progress(c, rows, now=now))  # noqa: B023
            except Unavailable:
                for stream, _, answers in reversed([*batch, *chain.from_iterable(batches)]):
                    stream.answers = answers + stream.answers
                    self.note_progress(stream)
                raise
            except Exception as error:
                # Whatever it is that the store does not take, it must not end the loop of everybody's streams.
                _log.error("the progress of listen sessions could not be written", count=len(batch), exc_info=error)
                batches += _parts(batch)

    async def _clean(self, stopping: asyncio.Event) -> None:
        """Remove sessions that nobody has used for long; those with a stream are in use."""
        for stream in self._streams.values():
            self._progressed[stream] = None
        await self.save()
        before = self.clock.now_ms() - UNUSED_EXPIRES_AFTER_MS
        found_all = False
        while not (found_all or stopping.is_set()):
            found = await self.database.read(lambda c: unused(c, before=before, limit=CLEAN_BITE))
            found_all = len(found) < CLEAN_BITE
            for session in found:
                # B023: it is run before the next turn.
                removed = await self.database.write(lambda c: delete_unused(c, session, before=before))  # noqa: B023
                if removed:
                    self.end(session.id)


def _parts(batch: list[_Progress]) -> list[list[_Progress]]:
    """What is written alone where something in it was refused, so that no more than that is lost."""
    if len(batch) > 1:
        return [[each] for each in batch]
    [(stream, position, answers)] = batch
    if len(answers) > 1:
        return [[(stream, position, [answer])] for answer in answers]
    return [[(stream, position, [])]] if answers else []


def _handed(event: Fed, type_name: str) -> Handed:
    return Handed(event.seq, event.id, type_name, event.created_at, event.body)
