"""The relay: sends events to developers' machines, over connections that the developers opened.

Each stream reads events from the store, starting after its position. The relay saves the positions every SAVE_EVERY_MS.
A client that reconnects sends its exact position.
"""

import asyncio
from itertools import chain
from typing import Final

import structlog

from uplift_server.core.deliveries.listening import UNUSED_EXPIRES_AFTER_MS
from uplift_server.core.deliveries.stream_limits import Exceeded, exceeded
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.listening.audience import Announcer, Audience
from uplift_server.delivery.listening.streams import UNAVAILABLE_WAIT_MS, EndReason, Stream
from uplift_server.delivery.ports import NEVER, Clock
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
CLEANUP_BATCH: Final = 100


class SessionGone(Exception):
    """The listen session ended before the stream began.

    Either the session or its account was deleted, or the session's key was revoked.
    """


class TooManyStreams(Exception):
    """A new stream would exceed `limit`: the limit for all streams, or the limit for the streams of an account."""

    def __init__(self, limit: Exceeded) -> None:
        super().__init__(limit)
        self.limit = limit


_Progress = tuple[Stream, int | None, list[ListenResponse]]
"""A stream, its position to save (if any), and its responses since the last save."""


class Relay:
    """Starts, wakes and ends the listen streams of this process, and saves their progress."""

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
        """Wake the streams of an account in all processes, because new events for the account were stored."""
        self.wake(account_seq)
        self._announcer.events_stored(account_seq)

    def wake(self, account_seq: int) -> None:
        """Wake the streams of an account in this process."""
        for stream in self._audience.here.get(account_seq, ()):
            stream.wake()

    async def connect(self, session: ListenSession, position: int | None) -> Stream:
        """Start a session's stream after `position`. If `position` is None, start after the latest known position.

        End all other streams of the session. Raises TooManyStreams, SessionGone or Unavailable.
        """
        stream = self._begin(session, position)
        # From now on, this stream ends if the session is deleted or the key is revoked.
        # The write below detects whether the session was deleted earlier, and protects the session from cleanup.
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
            self.end_here(session.id, EndReason.REPLACED, stream.replaced_at)
        self._announcer.session_ended(session.id, EndReason.REPLACED, began_at)
        return stream

    def _begin(self, session: ListenSession, position: int | None) -> Stream:
        earlier = self._streams.get(session.id)
        if earlier is None:
            limit = exceeded(len(self._streams), len(self._audience.here.get(session.account_seq, ())))
            if limit is not None:
                raise TooManyStreams(limit)
        else:
            self.disconnect(earlier)
            earlier.end(EndReason.REPLACED)
        unwritten = [each for each in self._progressed if each.session.id == session.id and not each.superseded]
        known = max([session.position, *(each.position for each in unwritten)])
        for each in unwritten:
            each.superseded = True
        stream = Stream(self, session, known if position is None else position)
        if self._stopping:
            stream.end(EndReason.STOPPING)
        self._streams[session.id] = stream
        if self._audience.add(stream):
            self._announcer.streams_changed()
        self.note_progress(stream)
        return stream

    def disconnect(self, stream: Stream) -> None:
        """Remove a stream whose connection has ended."""
        self.note_progress(stream)
        if self._streams.get(stream.session.id) is stream:
            del self._streams[stream.session.id]
        if self._audience.remove(stream):
            self._announcer.streams_changed()

    def stream_of(self, session_id: bytes) -> Stream | None:
        """Return the stream of a session, or None if the session is not connected to this process."""
        return self._streams.get(session_id)

    def note_progress(self, stream: Stream) -> None:
        """Include a stream's position and responses in the next `save`."""
        self._progressed[stream] = None
        self._wake.set()

    def end(self, session_id: bytes) -> None:
        """End the streams of a deleted session in all processes."""
        self.end_here(session_id, EndReason.REMOVED, NEVER)
        self._announcer.session_ended(session_id, EndReason.REMOVED, NEVER)

    def end_here(self, session_id: bytes, why: EndReason, at: int) -> None:
        """End a session's stream in this process if it began before `at` (Unix ms).

        Because of this condition, a late notification does not end a newer stream.
        """
        stream = self._streams.get(session_id)
        if stream is not None and why is EndReason.REPLACED and (stream.began_at is None or stream.began_at >= at):
            stream.replaced_at = max(stream.replaced_at, at)
        elif stream is not None:
            # A replaced stream does not store its position, because the new stream has the latest position.
            stream.superseded = why is EndReason.REPLACED
            stream.end(why)

    def end_streams_of_key(self, key_id: bytes) -> None:
        """End the streams whose sessions use a revoked key."""
        for stream in self._streams.values():
            if stream.session.key_id == key_id:
                stream.end(EndReason.REMOVED)

    def end_streams_of_account(self, account_seq: int) -> None:
        """End the streams of a deleted account."""
        for stream in self._audience.here.get(account_seq, ()):
            stream.end(EndReason.REMOVED)

    def stop(self) -> None:
        """End all streams. The clients then connect to another process, or to this process after its restart."""
        self._stopping = True
        for stream in self._streams.values():
            stream.end(EndReason.STOPPING)

    async def run(self, stopping: asyncio.Event) -> None:
        """Save the progress of streams, and delete unused sessions, until the process stops."""
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
                    await self._delete_unused(stopping)
            except Unavailable:
                await self.clock.wait(stopping, UNAVAILABLE_WAIT_MS)

    async def save(self) -> None:
        """Save the progress of all streams. If the method raises Unavailable, the next call saves the progress."""
        streams = list(self._progressed)
        self._progressed.clear()
        if not streams:
            return
        progress = [(stream, None if stream.superseded else stream.position, stream.responses) for stream in streams]
        for stream in streams:
            stream.responses = []
        now = self.clock.now_ms()
        batches = [progress]
        while batches:
            batch = batches.pop(0)
            rows = [(stream.session, position, responses) for stream, position, responses in batch]
            try:
                # Ruff's B023 does not apply, because the lambda runs before the next iteration.
                await self.database.write(lambda c: save_progress(c, rows, now=now))  # noqa: B023
            except Unavailable:
                for stream, _, responses in reversed([*batch, *chain.from_iterable(batches)]):
                    stream.responses = responses + stream.responses
                    self.note_progress(stream)
                raise
            except Exception as error:
                # A row that the store rejects must not block the other streams.
                _log.error("listen session progress not saved", count=len(batch), exc_info=error)
                batches += _split(batch)

    async def _delete_unused(self, stopping: asyncio.Event) -> None:
        """Delete the sessions that have had no stream for UNUSED_EXPIRES_AFTER_MS."""
        for stream in self._streams.values():
            self._progressed[stream] = None
        await self.save()
        before = self.clock.now_ms() - UNUSED_EXPIRES_AFTER_MS
        found_all = False
        while not (found_all or stopping.is_set()):
            found = await self.database.read(lambda c: list_unused(c, before=before, limit=CLEANUP_BATCH))
            found_all = len(found) < CLEANUP_BATCH
            for session in found:
                # Ruff's B023 does not apply, because the lambda runs before the next iteration.
                removed = await self.database.write(lambda c: delete_unused(c, session, before=before))  # noqa: B023
                if removed:
                    self.end(session.id)


def _split(batch: list[_Progress]) -> list[list[_Progress]]:
    """Split a batch that the database rejected, so that the relay can save the other rows.

    Split the batch by stream, or by response if the batch has only one stream. If the batch has only one response, drop
    the response and keep the position. If the batch has only a position, return no batch.
    """
    if len(batch) > 1:
        return [[each] for each in batch]
    [(stream, position, responses)] = batch
    if len(responses) > 1:
        return [[(stream, position, [response])] for response in responses]
    return [[(stream, position, [])]] if responses else []
