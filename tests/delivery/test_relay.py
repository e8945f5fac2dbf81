"""Listen streams over simulated days: positions, responses and the expiry of sessions."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa
from tests.engines import Place

from uplift_server.core.deliveries.listening import (
    LOCAL_RESPONSES_KEPT_MAX,
    TESTS_AWAITED_MAX,
    UNACKNOWLEDGED_BYTES_MAX,
    UNACKNOWLEDGED_EVENTS_MAX,
    LocalResponse,
)
from uplift_server.core.limits import STREAMS_PER_ACCOUNT_CROWDED_MAX, STREAMS_PER_ACCOUNT_MAX
from uplift_server.delivery.listening.relay import SessionGone, TooManyStreams
from uplift_server.delivery.listening.streams import LOOK_EVERY_MS, EndReason, Stream, StreamItem
from uplift_server.store import accounts, keys, listening, service_keys
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict, Unavailable
from uplift_server.store.hot_records import Appended
from uplift_server.store.listening import ListenResponse, ListenSession
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Account, ApiKey, ServiceKey
from uplift_server.store.schema import api_keys
from uplift_server.store.stream_position import STREAM_POSITION_MAX

from .world import DAY, HOUR, SECOND, World

UNSTORABLE = 1 << 64
"""A number that is too large for any column, so a response with this status cannot be stored."""


async def session_of(
    world: World, account: Account | None = None, *, event_types: tuple[str, ...] = ()
) -> ListenSession:
    session_id, key_id = world.fresh_id(), world.fresh_id()
    owner, now = account or world.account, world.clock.now

    def create(connection: Transaction) -> ListenSession:
        keys.create(
            connection, key_id=key_id, account_seq=owner.seq, name="ana", digest=key_id * 2, ends_with="1234",
            scopes=frozenset(), now=now,
        )  # fmt: skip
        return listening.create(
            connection, session_id=session_id, account_seq=owner.seq, key_id=key_id, description="ana-laptop",
            event_types=event_types, since=None, after_event=None, stream_position=STREAM_POSITION_MAX, now=now,
        )  # fmt: skip

    return await world.database.write(create)


async def sessions(world: World) -> list[ListenSession]:
    return (await world.database.read(lambda c: listening.page(c, world.account.seq, PageRequest(500)))).items


async def take_acknowledged(stream: Stream, count: int) -> list[StreamItem]:
    """Read the next `count` events, and record a successful response to each."""
    found: list[StreamItem] = []
    while len(found) < count:
        batch = await stream.next()
        assert batch is not None
        for item in batch:
            stream.record_response(item.position, LocalResponse("", 200, 1, None, "", redelivered=False))
        found += batch
    return found


async def stored_responses(world: World, session: ListenSession) -> list[ListenResponse]:
    return (await world.database.read(lambda c: listening.page_of_responses(c, session.seq, PageRequest(5000)))).items


async def test_an_unused_session_is_deleted_after_a_day(place: Place) -> None:
    async with World(place, scan_every_ms=HOUR) as world:
        unused, used = await session_of(world), await session_of(world)
        stream = await world.parts.relay.connect(used, None)
        assert stream is not None
        await world.run_for(DAY - HOUR)
        assert {session.id for session in await sessions(world)} == {unused.id, used.id}
        await world.run_for(2 * HOUR + SECOND)
        assert [session.id for session in await sessions(world)] == [used.id]
        world.parts.relay.disconnect(stream)
        await world.run_for(DAY + 2 * HOUR)
        assert await sessions(world) == []


async def test_a_session_that_connects_when_it_expires_stays(place: Place) -> None:
    async with World(place, scan_every_ms=HOUR) as world:
        session = await session_of(world)
        relay, database = world.parts.relay, world.database
        streams: list[Stream | None] = []

        class Interrupted:
            """A database whose list of unused sessions is outdated."""

            write, stream_position = database.write, database.stream_position

            async def read(self, body: Any) -> Any:
                found = await database.read(body)
                if isinstance(found, list) and session in found:
                    streams.append(await relay.connect(session, None))
                return found

        relay.database = Interrupted()  # type: ignore[assignment]
        await world.run_for(DAY + 2 * HOUR)
        [stream] = streams
        assert stream is not None
        assert stream.end_reason is None
        assert [each.id for each in await sessions(world)] == [session.id]
        [event] = await world.accept()
        assert [item.position for item in await take_acknowledged(stream, 1)] == [event.seq]


async def test_no_stream_begins_for_a_deleted_session(place: Place) -> None:
    async with World(place) as world:
        session, relay = await session_of(world), world.parts.relay
        earlier = await relay.connect(session, None)
        assert earlier is not None
        await world.database.write(lambda c: listening.delete(c, session))
        with pytest.raises(SessionGone):
            await relay.connect(session, None)
        assert relay.stream_of(session.id) is None
        assert world.parts.audience.here == {}
        assert await earlier.next() is None


async def test_no_stream_begins_after_a_revoked_key_or_deleted_account(
    place: Place,
) -> None:
    async with World(place) as world:
        relay, other = world.parts.relay, await world.new_account()
        session, of_other = await session_of(world), await session_of(world, other)
        await world.database.write(lambda c: keys.revoke(c, world.account.seq, session.key_id, now=world.clock.now))
        await world.database.write(lambda c: accounts.delete(c, other.id, now=world.clock.now))
        for each in (session, of_other):
            with pytest.raises(SessionGone):
                await relay.connect(each, None)
            assert relay.stream_of(each.id) is None


@pytest.mark.parametrize("is_service_key", [False, True], ids=["account key", "service key"])
async def test_a_stream_ends_when_its_key_expires(place: Place, is_service_key: bool) -> None:
    """The stream ends within LOOK_EVERY_MS, even if the expiry is set during the stream."""
    async with World(place) as world:
        session, cache = await session_of(world), world.cache
        stream = await world.parts.relay.connect(session, None)
        reading = asyncio.ensure_future(stream.next())
        world.callers.add(reading)
        await world.run_for(SECOND)
        assert not reading.done()
        expires_at = world.clock.now + 3 * SECOND
        if is_service_key:
            cache.put_service_key(
                ServiceKey(1, session.key_id, "s", b"d" * 32, "", frozenset({"listen"}), 0, expires_at)
            )
        else:
            cache.put_key(
                ApiKey(1, session.key_id, session.account_seq, "k", b"d" * 32, "", frozenset({"listen"}), 0, expires_at)
            )
        await world.accept()
        assert await reading is not None
        reading = asyncio.ensure_future(stream.next())
        world.callers.add(reading)
        await world.run_for(3 * SECOND + LOOK_EVERY_MS)
        assert await reading is None
        assert stream.end_reason is EndReason.REMOVED


async def test_no_stream_begins_after_a_revoked_service_key(place: Place) -> None:
    async with World(place) as world:
        session = await session_of(world)

        def revoke(connection: Transaction) -> None:
            keys.revoke(connection, world.account.seq, session.key_id, now=1)
            connection.execute(sa.delete(api_keys))
            service_keys.create(
                connection, key_id=session.key_id, name="", digest=b"s" * 32, ends_with="", scopes=frozenset(),
                expires_at=None, now=0,
            )  # fmt: skip

        await world.database.write(revoke)
        assert await world.parts.relay.connect(session, None) is not None
        await world.database.write(lambda c: service_keys.revoke(c, session.key_id, now=world.clock.now))
        with pytest.raises(SessionGone):
            await world.parts.relay.connect(session, None)


async def test_events_read_at_the_end_of_a_stream_are_not_sent(place: Place) -> None:
    async with World(place) as world:
        session, relay, database = await session_of(world), world.parts.relay, world.database
        stream = await relay.connect(session, None)
        assert stream is not None
        [event] = await world.accept()

        class Interrupted:
            """A database. During each read, the streams of the session's key end, as if the key were revoked."""

            write, stream_position = database.write, database.stream_position

            async def read(self, body: Any) -> Any:
                found = await database.read(body)
                relay.end_streams_of_key(session.key_id)
                return found

        relay.database = Interrupted()  # type: ignore[assignment]
        assert await stream.next() is None
        assert stream.end_reason is EndReason.REMOVED
        assert stream.position < event.seq


async def test_unacknowledged_events_are_bounded_and_hold_the_position(place: Place) -> None:
    async with World(place) as world:
        session = await session_of(world)
        stream = await world.parts.relay.connect(session, None)
        assert stream is not None
        stored = await world.accept(UNACKNOWLEDGED_EVENTS_MAX + 10)
        batch = await stream.next()
        assert batch is not None
        assert [item.position for item in batch] == [each.seq for each in stored[:UNACKNOWLEDGED_EVENTS_MAX]]
        # Responses can be out of order, as with `--shuffle`. A new stream continues after the last event up to which
        # every event has a response.
        for item in (batch[1], batch[2]):
            stream.record_response(item.position, LocalResponse("", 200, 1, None, "", redelivered=False))
        assert stream.position == stored[0].seq - 1
        stream.record_response(batch[0].position, LocalResponse("", 200, 1, None, "", redelivered=False))
        assert stream.position == stored[2].seq
        await world.run_for(SECOND)
        await world.kill()
        (found,) = await sessions(world)
        assert found.position == stored[2].seq
        again = await world.parts.relay.connect(found, None)
        assert again is not None
        assert [item.position for item in await take_acknowledged(again, 71)] == [each.seq for each in stored[3:]]


async def test_an_event_stored_during_a_read_is_sent_at_once(place: Place) -> None:
    async with World(place) as world:
        session, relay, database = await session_of(world), world.parts.relay, world.database
        stream = await relay.connect(session, None)
        assert stream is not None
        stored: list[Appended] = []

        class Interrupted:
            """A database. After the first read, an event is stored before the stream gets the result."""

            write, stream_position = database.write, database.stream_position

            async def read(self, body: Any) -> Any:
                found = await database.read(body)
                if not stored:
                    stored.extend(await world.accept())
                return found

        relay.database = Interrupted()  # type: ignore[assignment]
        began = world.clock.now
        assert [item.position for item in await take_acknowledged(stream, 1)] == [stored[0].seq]
        assert world.clock.now == began


async def test_a_stream_continues_after_a_database_error(place: Place) -> None:
    async with World(place) as world:
        session, relay, database = await session_of(world), world.parts.relay, world.database
        stream = await relay.connect(session, None)
        assert stream is not None
        [event] = await world.accept()
        failures = iter([Unavailable("the disk is full")])

        class Failing:
            """A database whose first read fails."""

            write, stream_position = database.write, database.stream_position

            async def read(self, body: Any) -> Any:
                for failure in failures:
                    raise failure
                return await database.read(body)

        relay.database = Failing()  # type: ignore[assignment]
        taking = asyncio.ensure_future(take_acknowledged(stream, 1))
        await world.run_for(SECOND)
        # The virtual clock does not wait for the task `taking`, so the read may need real time.
        assert [item.position for item in await asyncio.wait_for(taking, 10)] == [event.seq]


async def test_unacknowledged_bytes_are_bounded_except_for_the_last_event(place: Place) -> None:
    async with World(place) as world:
        session = await session_of(world)
        stream = await world.parts.relay.connect(session, None)
        assert stream is not None
        stored = await world.accept(40, pad=250_000)
        batch = await stream.next()
        assert batch is not None
        size = sum(len(item.body) for item in batch)
        assert UNACKNOWLEDGED_BYTES_MAX <= size < UNACKNOWLEDGED_BYTES_MAX + len(batch[-1].body)
        # A response makes room for another event.
        for item in batch[:2]:
            stream.record_response(item.position, LocalResponse("", 200, 1, None, "", redelivered=False))
        more = await stream.next()
        assert more is not None
        assert len(more) <= 2
        for item in [*batch[2:], *more]:
            stream.record_response(item.position, LocalResponse("", 200, 1, None, "", redelivered=False))
        rest = await take_acknowledged(stream, 40 - len(batch) - len(more))
        assert [item.position for item in [*batch, *more, *rest]] == [each.seq for each in stored]


async def test_test_events_are_bounded_and_delay_no_event(place: Place) -> None:
    async with World(place) as world:
        session = await session_of(world)
        stream = await world.parts.relay.connect(session, None)
        assert stream is not None

        def send_test() -> "asyncio.Future[ListenResponse] | None":
            return stream.send_test(world.fresh_id(), "a.b", world.clock.now, b"x" * 250_000)

        # No client reads the stream yet. When one does, test events without a waiting caller are not sent.
        for _ in range(20):
            awaited = [send_test() for _ in range(TESTS_AWAITED_MAX)]
            assert send_test() is None
            for each in awaited:
                assert each is not None
                each.cancel()
        last = send_test()
        assert last is not None
        [sent] = await stream.next() or []
        # Test events that never get a response do not delay other events.
        for _ in range(2 * UNACKNOWLEDGED_EVENTS_MAX):
            unanswered = send_test()
            assert unanswered is not None
            assert len(await stream.next() or ()) == 1
            unanswered.cancel()
        stored = await world.accept(UNACKNOWLEDGED_EVENTS_MAX)
        assert [item.position for item in await stream.next() or ()] == [each.seq for each in stored]
        # The caller of the first test event still waits, and gets this response.
        stream.record_response(sent.position, LocalResponse("", 201, 1, None, "", redelivered=False))
        assert (await last).status_code == 201


async def test_a_late_or_early_response_to_a_test_event(place: Place) -> None:
    async with World(place) as world:
        session = await session_of(world)
        stream = await world.parts.relay.connect(session, None)
        assert stream is not None
        abandoned = stream.send_test(world.fresh_id(), "a.b", world.clock.now, b"{}")
        assert abandoned is not None
        [sent] = await stream.next() or []
        abandoned.cancel()
        stream.record_response(sent.position, LocalResponse("", 401, 1, None, "", redelivered=False))
        assert stream.send_test(world.fresh_id(), "a.b", world.clock.now, b"{}") is not None
        stream.record_response(sent.position - 1, LocalResponse("", 200, 1, None, "", redelivered=False))
        [event] = await world.accept()
        assert [item.position for item in await stream.next() or ()] == [event.seq]
        await world.run_for(SECOND)
        assert [response.status_code for response in await stored_responses(world, session)] == [200, 401]


async def test_a_replaced_stream_does_not_change_the_position(place: Place) -> None:
    async with World(place) as world:
        session, relay = await session_of(world), world.parts.relay
        first = await relay.connect(session, None)
        assert first is not None
        stored = await world.accept(3)
        batch = await first.next()
        assert batch is not None
        second = await relay.connect(session, None)
        assert second is not None
        await take_acknowledged(second, 3)
        await world.run_for(SECOND)
        # The first connection sends its response, and ends, after the second one has received the events.
        first.record_response(batch[0].position, LocalResponse("", 503, 1, None, "", redelivered=False))
        relay.disconnect(first)
        await world.run_for(SECOND)
        (found,) = await sessions(world)
        assert found.position == stored[2].seq
        assert [response.status_code for response in await stored_responses(world, session)] == [503, 200, 200, 200]


async def test_all_unused_sessions_are_deleted_at_once(place: Place) -> None:
    async with World(place, scan_every_ms=HOUR) as world:
        for _ in range(5):
            account = await world.new_account()
            for _ in range(50):
                await session_of(world, account)
        await world.run_for(DAY + 2 * HOUR - SECOND)
        assert (await world.database.read(lambda c: listening.page(c, None, PageRequest(500)))).items == []


async def test_the_newest_responses_are_kept(place: Place) -> None:
    async with World(place) as world:
        session = await session_of(world)
        stream = await world.parts.relay.connect(session, None)
        assert stream is not None
        stored = await world.accept(LOCAL_RESPONSES_KEPT_MAX + 50)
        await take_acknowledged(stream, len(stored))
        await world.run_for(2 * SECOND)
        kept = await stored_responses(world, session)
        assert [response.event_id for response in kept] == [each.id for each in reversed(stored[50:])]


async def test_a_stop_ends_every_stream_and_later_ones(place: Place) -> None:
    async with World(place) as world:
        session, other = await session_of(world), await session_of(world)
        stream = await world.parts.relay.connect(session, None)
        assert stream is not None
        await world.stepping(world.engine.drain())
        assert await stream.next() is None
        assert stream.end_reason is EndReason.STOPPING
        late = await world.parts.relay.connect(other, None)
        assert late is not None
        assert await late.next() is None


async def test_sessions_and_streams_are_bounded(place: Place) -> None:
    async with World(place) as world:
        for _ in range(50):
            await session_of(world)
        with pytest.raises(Conflict, match="at most 50 listen sessions"):
            await session_of(world)
        relay, streams = world.parts.relay, []

        async def connected(created: list[ListenSession]) -> int:
            """Connect sessions until a limit is reached. Return the number of connected sessions."""
            before = len(streams)
            with suppress(TooManyStreams):
                for session in created:
                    streams.append(await relay.connect(session, 0))
            return len(streams) - before

        created = await sessions(world)
        assert await connected(created) == STREAMS_PER_ACCOUNT_MAX
        # Reconnecting a session uses no additional capacity.
        await relay.connect(created[0], 0)
        counts = []
        for _ in range(8):
            account = await world.new_account()
            counts.append(await connected([await session_of(world, account) for _ in range(30)]))
        assert counts == [STREAMS_PER_ACCOUNT_MAX] * 5 + [STREAMS_PER_ACCOUNT_CROWDED_MAX] * 3
        for stream in streams:
            relay.disconnect(stream)
        assert await connected(created) == STREAMS_PER_ACCOUNT_MAX


async def test_only_a_rejected_response_is_lost(place: Place) -> None:
    async with World(place) as world:
        relay = world.parts.relay
        sessions_made = [await session_of(world), await session_of(world)]
        streams = [await relay.connect(session, None) for session in sessions_made]
        stored = await world.accept(3)
        for stream in streams:
            assert stream is not None
            for item in await stream.next() or ():
                status = UNSTORABLE if stream is streams[0] and item.position == stored[1].seq else 200
                stream.record_response(item.position, LocalResponse("", status, 1, None, "fine", redelivered=False))
        await world.run_for(2 * SECOND)
        kept = [[response.event_id for response in await stored_responses(world, session)] for session in sessions_made]
        newest_first = [each.id for each in reversed(stored)]
        assert kept == [[newest_first[0], newest_first[2]], newest_first]
        assert {session.position for session in await sessions(world)} == {stored[2].seq}
        # The loop that writes responses continues.
        await world.accept()
        for stream in streams:
            assert stream is not None
            await take_acknowledged(stream, 1)
        await world.run_for(2 * SECOND)
        assert [len(await stored_responses(world, session)) for session in sessions_made] == [3, 4]


async def test_a_database_error_between_single_writes_loses_and_repeats_nothing(
    place: Place,
) -> None:
    async with World(place) as world:
        session, relay, database = await session_of(world), world.parts.relay, world.database
        stream = await relay.connect(session, None)
        assert stream is not None
        stored = await world.accept(4)
        for item in await stream.next() or ():
            status = UNSTORABLE if item.position == stored[0].seq else 200
            stream.record_response(item.position, LocalResponse("", status, 1, None, "fine", redelivered=False))
        writes = 0

        class Failing:
            """A database that fails once, at the second write that contains a single response."""

            read, stream_position = database.read, database.stream_position

            async def write(self, body: Any) -> Any:
                nonlocal writes
                writes += 1
                if writes == 3:
                    raise Unavailable("the disk is full")
                return await database.write(body)

        relay.database = Failing()  # type: ignore[assignment]
        await world.run_for(5 * SECOND)
        kept = [response.event_id for response in await stored_responses(world, session)]
        assert sorted(kept) == sorted(each.id for each in stored[1:])
