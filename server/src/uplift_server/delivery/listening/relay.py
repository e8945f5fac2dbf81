"""The relay: streams of events to developers' machines, over connections that they opened.

A stream reads the store from its own place on, as far ahead as its other end answers, so nothing has to be kept for it
and nobody else waits for it. What is known of its place in memory is written now and then; whoever reconnects says
where they were, which is exact.
"""

import asyncio
from itertools import chain
from typing import Final

import structlog

from uplift_server.core.deliveries.listening import UNUSED_EXPIRES_AFTER_MS
from uplift_server.core.deliveries.stream_limits import Exceeded, exceeded
from uplift_server.delivery.endpoint_cache import NEVER, EndpointCache
from uplift_server.delivery.listening.audience import Announcer, Audience
from uplift_server.delivery.listening.streams import UNAVAILABLE_WAIT_MS, Ending, Stream
from uplift_server.delivery.ports import Clock
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.listening import (
    ListenResponse,
    ListenSession,
    delete_unused,
    list_unused,
    record_connection,
    save_progress,
)

_log = structlog.get_logger()

SAVE_EVERY_MS: Final = 500
CLEAN_EVERY_MS: Final = 3_600_000
CLEAN_BITE: Final = 100


class SessionGone(Exception):
    """The session was removed before its stream began, or its key revoked, or its account deleted."""


class TooManyStreams(Exception):
    """The stream would exceed a limit."""

    def __init__(self, limit: Exceeded) -> None:
        super().__init__(limit)
        self.limit = limit


_Progress = tuple[Stream, int | None, list[ListenResponse]]
"""How far a stream has come, and what was answered since that was last written."""


class Relay:
    """All streams of this process."""

    def __init__(
        self, database: Database, cache: EndpointCache, audience: Audience, announcer: Announcer, clock: Clock
    ) -> None:
        self.database = database
        self.cache = cache
        self.clock = clock
        self._audience = audience
        self._announcer = announcer
        self._streams: dict[bytes, Stream] = {}
        self._progressed: dict[Stream, None] = {}
        self._wake = asyncio.Event()
        self._stopping = False

    def note_stored(self, account_seq: int) -> None:
        """Wake the streams of an account, in all processes: events were stored."""
        self.wake(account_seq)
        self._announcer.events_stored(account_seq)

    def wake(self, account_seq: int) -> None:
        """Wake the streams of an account in this process."""
        for stream in self._audience.here.get(account_seq, ()):
            stream.wake()

    async def connect(self, session: ListenSession, place: int | None) -> Stream:
        """Start a session's stream after a position, or at its last position.

        Another stream of the same session ends. Raises TooManyStreams, SessionGone and Unavailable.
        """
        stream = self._begin(session, place)
        # Whoever removes the session from now on, or revokes its key, ends this stream; that nobody did so before, the
        # database tells. It tells those who remove what nobody uses that somebody does.
        now = self.clock.now_ms()
        try:
            began_at = await self.database.write(lambda c: record_connection(c, session, now=now))
            if began_at is None:
                raise SessionGone
        except BaseException:
            self.disconnect(stream)
            raise
        stream.began_at = began_at
        if self._streams.get(session.id) is stream and stream.replaced_at > began_at:
            self.end_here(session.id, Ending.REPLACED, stream.replaced_at)
        self._announcer.session_ended(session.id, Ending.REPLACED, began_at)
        return stream

    def _begin(self, session: ListenSession, place: int | None) -> Stream:
        earlier = self._streams.get(session.id)
        if earlier is None:
            limit = exceeded(len(self._streams), len(self._audience.here.get(session.account_seq, ())))
            if limit is not None:
                raise TooManyStreams(limit)
        else:
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
        of_account = self._audience.here.setdefault(session.account_seq, set())
        of_account.add(stream)
        if len(of_account) == 1:
            self._changed()
        self.note_progress(stream)
        return stream

    def disconnect(self, stream: Stream) -> None:
        """A stream's connection is over."""
        self.note_progress(stream)
        if self._streams.get(stream.session.id) is stream:
            del self._streams[stream.session.id]
        of_account = self._audience.here.get(stream.session.account_seq)
        if of_account is not None:
            of_account.discard(stream)
            if not of_account:
                del self._audience.here[stream.session.account_seq]
                self._changed()

    def _changed(self) -> None:
        self._audience.update()
        self._announcer.streams_changed()

    def stream_of(self, session_id: bytes) -> Stream | None:
        """The stream of a session that is connected."""
        return self._streams.get(session_id)

    def note_progress(self, stream: Stream) -> None:
        """A stream's place is to be written."""
        self._progressed[stream] = None
        self._wake.set()

    def end(self, session_id: bytes) -> None:
        """A session was removed."""
        self.end_here(session_id, Ending.REMOVED, NEVER)
        self._announcer.session_ended(session_id, Ending.REMOVED, NEVER)

    def end_here(self, session_id: bytes, why: Ending, at: int) -> None:
        """A session was removed, or connected to once more at an instant (Unix ms), through another process.

        What is told of a connection may come after the next: of two the one that began later stays.
        """
        stream = self._streams.get(session_id)
        if stream is not None and why is Ending.REPLACED and (stream.began_at is None or stream.began_at >= at):
            stream.replaced_at = max(stream.replaced_at, at)
        elif stream is not None:
            # Where it is now that one knows.
            stream.superseded = why is Ending.REPLACED
            stream.end(why)

    def end_of_key(self, key_id: bytes) -> None:
        """A key was revoked: the streams opened with it end."""
        for stream in self._streams.values():
            if stream.session.key_id == key_id:
                stream.end(Ending.REMOVED)

    def end_of_account(self, account_seq: int) -> None:
        """An account was deleted: its streams end."""
        for stream in self._audience.here.get(account_seq, ()):
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
            found = await self.database.read(lambda c: list_unused(c, before=before, limit=CLEAN_BITE))
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
