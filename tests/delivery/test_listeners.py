"""Listen streams with several processes: a stream gets events and session changes from every process."""

import asyncio

import pytest
from tests.engines import Place

from uplift_server.core.deliveries.listening import LocalResponse
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.delivery.cluster.announcer import EXPIRES_AFTER_MS
from uplift_server.delivery.listening.streams import LOOK_EVERY_MS, EndReason, Stream, StreamItem
from uplift_server.store import listening
from uplift_server.store.listening import ListenSession

from .fleet import Fleet, Peer, unavailable
from .test_cache_sync_interrupted import new_event_type
from .test_relay import session_of, sessions
from .world import SECOND

SOON_MS = 200


async def start_two(fleet: Fleet) -> tuple[Peer, Peer]:
    """Start two API processes."""
    streaming, other = [await fleet.start(ProcessRole.API) for _ in range(2)]
    await fleet.run_for(3 * SECOND)
    return streaming, other


async def connected(fleet: Fleet, peer: Peer, session: ListenSession | None = None) -> Stream:
    stream = await peer.parts.relay.connect(session or await session_of(fleet), None)
    assert stream is not None
    await fleet.run_for(SECOND)
    return stream


class Reading:
    """The items of a stream with their times."""

    def __init__(self, fleet: Fleet, stream: Stream) -> None:
        self._fleet = fleet
        self._stream = stream
        self.items: list[tuple[int, StreamItem]] = []
        self.ended_at: int | None = None
        self.task = asyncio.ensure_future(self._read())
        fleet.callers.add(self.task)

    async def _read(self) -> None:
        while (found := await self._stream.next()) is not None:
            self.items += [(self._fleet.clock.now, item) for item in found]
        self.ended_at = self._fleet.clock.now


@pytest.mark.parametrize("silent", [False, True])
async def test_a_stream_gets_events_that_another_process_accepts(place: Place, silent: bool) -> None:
    async with Fleet(place) as fleet:
        streaming, other = await start_two(fleet)
        reading = Reading(fleet, await connected(fleet, streaming))
        await fleet.run_for(SECOND)
        fleet.bus.silent = silent
        fleet.switch_to(other)
        began = fleet.clock.now
        await fleet.accept(3)
        await fleet.run_for(2 * LOOK_EVERY_MS)
        assert len(reading.items) == 3
        assert all(at - began <= (LOOK_EVERY_MS if silent else SOON_MS) for at, _ in reading.items)


async def test_processes_send_no_notifications_without_streams(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Fleet(place) as fleet:
        streaming, other = await start_two(fleet)
        sent: list[str] = []
        publish = fleet.bus.publish
        monkeypatch.setattr(fleet.bus, "publish", lambda text: (sent.append(text), publish(text)))
        fleet.switch_to(other)
        await fleet.accept(3)
        await fleet.run_for(SECOND)
        assert sent == []
        stream = await connected(fleet, streaming)
        await fleet.accept(3)
        await fleet.run_for(SECOND)
        assert sum('"stored"' in text for text in sent) == 1
        # Notifications also stop if the process could not announce the end of the stream.
        fleet.bus.silent = True
        streaming.parts.relay.disconnect(stream)
        await fleet.run_for(EXPIRES_AFTER_MS + SECOND)
        sent.clear()
        await fleet.accept(3)
        await fleet.run_for(SECOND)
        assert sent == []


@pytest.mark.parametrize("silent", [False, True])
async def test_a_session_deleted_through_another_process_ends(place: Place, silent: bool) -> None:
    async with Fleet(place) as fleet:
        streaming, other = await start_two(fleet)
        session = await session_of(fleet)
        stream = await connected(fleet, streaming, session)
        reading = Reading(fleet, stream)
        fleet.bus.silent = silent
        began = fleet.clock.now
        await fleet.database.write(lambda c: listening.delete(c, session))
        other.parts.relay.end(session.id)
        await fleet.run_for(3 * LOOK_EVERY_MS)
        assert stream.end_reason is EndReason.REMOVED
        assert reading.ended_at is not None
        assert reading.ended_at - began <= (2 * LOOK_EVERY_MS if silent else SOON_MS)


async def test_a_session_that_connects_to_another_process_streams_only_there(place: Place) -> None:
    async with Fleet(place) as fleet:
        streaming, other = await start_two(fleet)
        session = await session_of(fleet)
        first = await connected(fleet, streaming, session)
        reading = Reading(fleet, first)
        second = await connected(fleet, other, session)
        assert (first.end_reason, second.end_reason) == (EndReason.REPLACED, None)
        other_reading = Reading(fleet, second)
        fleet.switch_to(streaming)
        await fleet.accept(2)
        await fleet.run_for(SECOND)
        assert (len(reading.items), len(other_reading.items)) == (0, 2)
        place = max(item.position for _, item in other_reading.items)
        for _, item in other_reading.items:
            second.record_response(item.position, LocalResponse("", 200, 1, None, "", redelivered=False))
        await fleet.run_for(SECOND)
        # The first process has an older position, which it must not store.
        streaming.parts.relay.disconnect(first)
        await fleet.run_for(SECOND)
        assert [each.position for each in await sessions(fleet)] == [place]


async def test_the_later_of_two_connections_stays_despite_late_notifications(place: Place) -> None:
    """A late notification about an old connection does not end the new one."""
    async with Fleet(place) as fleet:
        streaming, other = await start_two(fleet)
        session = await session_of(fleet)
        delayed: list[str] = []
        publish = fleet.bus.publish
        fleet.bus.publish = delayed.append  # type: ignore[method-assign]
        first = await connected(fleet, streaming, session)
        fleet.bus.publish = publish  # type: ignore[method-assign]
        second = await connected(fleet, other, session)
        for text in delayed:
            fleet.bus.publish(text)
        await fleet.run_for(SECOND)
        assert (first.end_reason, second.end_reason) == (EndReason.REPLACED, None)


async def test_a_stream_gets_events_of_an_uncached_type(place: Place) -> None:
    async with Fleet(place) as fleet:
        streaming, other = await start_two(fleet)
        unfiltered = Reading(fleet, await connected(fleet, streaming))
        filtered = Reading(fleet, await connected(fleet, streaming, await session_of(fleet, event_types=("a.b",))))
        streaming.cache_sync.sync = unavailable  # type: ignore[method-assign]
        record = await fleet.database.write(new_event_type)
        other.cache.put_event_type(record)
        assert record.name not in streaming.cache.event_types
        fleet.switch_to(other)
        await fleet.accept(1, event_type=record.name)
        await fleet.accept(1)
        await fleet.run_for(2 * LOOK_EVERY_MS)
        assert [item.type for _, item in unfiltered.items] == [record.name, "a.b"]
        assert [item.type for _, item in filtered.items] == ["a.b"]
