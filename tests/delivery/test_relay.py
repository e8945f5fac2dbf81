"""Streams to developers' machines over simulated days: what is kept of them, and for how long."""

from pathlib import Path
from typing import Any

import pytest

from uplift_server.core.listening import ANSWERS_KEPT_MAX, UNANSWERED_EVENTS_MAX, Answer
from uplift_server.delivery.relay import STREAMS_MAX, Ending, Handed, SessionGone, Stream
from uplift_server.store import accounts, keys, listening
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict, Unavailable
from uplift_server.store.listening import ListenSession, StoredAnswer
from uplift_server.store.records import Account

from .world import DAY, HOUR, SECOND, World


async def session_of(world: World, account: Account | None = None) -> ListenSession:
    session_id, key_id = world.fresh_id(), world.fresh_id()
    owner, now = account or world.account, world.clock.now

    def create(connection: Transaction) -> ListenSession:
        keys.create(
            connection, key_id=key_id, account_seq=owner.seq, name="ana", digest=key_id * 2, ends_with="1234",
            scopes=frozenset(), now=now,
        )  # fmt: skip
        return listening.create(
            connection, session_id=session_id, account_seq=owner.seq, key_id=key_id, description="ana-laptop",
            event_types=(), since=None, after_event=None, now=now,
        )  # fmt: skip

    return await world.database.write(create)


async def sessions(world: World) -> list[ListenSession]:
    return (await world.database.read(lambda c: listening.page(c, world.account.seq, limit=500))).items


async def taken(stream: Stream, count: int) -> list[Handed]:
    """The next events, each answered."""
    found: list[Handed] = []
    while len(found) < count:
        batch = await stream.next()
        assert batch is not None
        for handed in batch:
            stream.answered(handed.place, Answer("", 200, 1, None, "", redelivered=False))
        found += batch
    return found


async def answers(world: World, session: ListenSession) -> list[StoredAnswer]:
    return (await world.database.read(lambda c: listening.page_of_answers(c, session.seq, limit=5000))).items


async def test_a_session_nobody_uses_for_a_day_is_removed_and_one_in_use_stays(tmp_path: Path) -> None:
    async with World(tmp_path, scan_every_ms=HOUR) as world:
        unused, used = await session_of(world), await session_of(world)
        stream = await world.engine.relay.connect(used, None)
        assert stream is not None
        await world.run_for(DAY - HOUR)
        assert {session.id for session in await sessions(world)} == {unused.id, used.id}
        await world.run_for(2 * HOUR + SECOND)
        assert [session.id for session in await sessions(world)] == [used.id]
        world.engine.relay.disconnect(stream)
        await world.run_for(DAY + 2 * HOUR)
        assert await sessions(world) == []


async def test_a_session_that_is_connected_to_at_the_moment_it_expires_stays(tmp_path: Path) -> None:
    async with World(tmp_path, scan_every_ms=HOUR) as world:
        session = await session_of(world)
        relay, database = world.engine.relay, world.database
        streams: list[Stream | None] = []

        class Interrupted:
            """The database; whoever reads from it that the session is unused is told so a moment too late."""

            write = database.write

            async def read(self, body: Any) -> Any:
                found = await database.read(body)
                if isinstance(found, list) and session in found:
                    streams.append(await relay.connect(session, None))
                return found

        relay.database = Interrupted()  # type: ignore[assignment]
        await world.run_for(DAY + 2 * HOUR)
        [stream] = streams
        assert stream is not None
        assert stream.ending is None
        assert [each.id for each in await sessions(world)] == [session.id]
        [event] = await world.accept()
        assert [handed.place for handed in await taken(stream, 1)] == [event.seq]


async def test_no_stream_begins_for_a_session_that_was_removed_meanwhile(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        session, relay = await session_of(world), world.engine.relay
        earlier = await relay.connect(session, None)
        assert earlier is not None
        await world.database.write(lambda c: listening.delete(c, session))
        with pytest.raises(SessionGone):
            await relay.connect(session, None)
        assert relay.stream_of(session.id) is None
        assert relay.listened == {}
        assert await earlier.next() is None


async def test_no_stream_begins_with_a_key_that_was_revoked_or_for_an_account_that_was_deleted_meanwhile(
    tmp_path: Path,
) -> None:
    async with World(tmp_path) as world:
        relay, other = world.engine.relay, await world.new_account()
        session, of_other = await session_of(world), await session_of(world, other)
        await world.database.write(lambda c: keys.revoke(c, world.account.seq, session.key_id, now=world.clock.now))
        await world.database.write(lambda c: accounts.delete(c, other.id, now=world.clock.now))
        for each in (session, of_other):
            with pytest.raises(SessionGone):
                await relay.connect(each, None)
            assert relay.stream_of(each.id) is None


async def test_what_was_read_when_a_stream_ended_is_not_handed_over(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        session, relay, database = await session_of(world), world.engine.relay, world.database
        stream = await relay.connect(session, None)
        assert stream is not None
        [event] = await world.accept()

        class Interrupted:
            """The database; while it is read, the session's key is revoked."""

            write = database.write

            async def read(self, body: Any) -> Any:
                found = await database.read(body)
                relay.end_of_key(session.key_id)
                return found

        relay.database = Interrupted()  # type: ignore[assignment]
        assert await stream.next() is None
        assert stream.ending is Ending.REMOVED
        assert stream.position < event.seq


async def test_what_is_unanswered_is_bounded_and_its_place_is_where_the_first_unanswered_one_is(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        session = await session_of(world)
        stream = await world.engine.relay.connect(session, None)
        assert stream is not None
        stored = await world.accept(UNANSWERED_EVENTS_MAX + 10)
        batch = await stream.next()
        assert batch is not None
        assert [handed.place for handed in batch] == [each.seq for each in stored[:UNANSWERED_EVENTS_MAX]]
        # Answered out of order, as with `--shuffle`: it would go on behind the last of which all before are answered.
        for handed in (batch[1], batch[2]):
            stream.answered(handed.place, Answer("", 200, 1, None, "", redelivered=False))
        assert stream.position == stored[0].seq - 1
        stream.answered(batch[0].place, Answer("", 200, 1, None, "", redelivered=False))
        assert stream.position == stored[2].seq
        await world.run_for(SECOND)
        await world.kill()
        (found,) = await sessions(world)
        assert found.position == stored[2].seq
        again = await world.engine.relay.connect(found, None)
        assert again is not None
        assert [handed.place for handed in await taken(again, 71)] == [each.seq for each in stored[3:]]


async def test_the_newest_answers_are_kept(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        session = await session_of(world)
        stream = await world.engine.relay.connect(session, None)
        assert stream is not None
        stored = await world.accept(ANSWERS_KEPT_MAX + 50)
        await taken(stream, len(stored))
        await world.run_for(2 * SECOND)
        kept = await answers(world, session)
        assert [answer.event_id for answer in kept] == [each.id for each in reversed(stored[50:])]


async def test_a_stop_ends_every_stream_and_one_that_is_begun_then(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        session, other = await session_of(world), await session_of(world)
        stream = await world.engine.relay.connect(session, None)
        assert stream is not None
        await world.stepping(world.engine.drain())
        assert await stream.next() is None
        assert stream.ending is Ending.STOPPING
        late = await world.engine.relay.connect(other, None)
        assert late is not None
        assert await late.next() is None


async def test_sessions_and_streams_are_bounded(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        for _ in range(50):
            await session_of(world)
        with pytest.raises(Conflict, match="at most 50 listen sessions"):
            await session_of(world)
        others = [await world.new_account() for _ in range(STREAMS_MAX // 50)]
        made = await sessions(world)
        made += [await session_of(world, account) for account in others for _ in range(50)]
        streams = [await world.engine.relay.connect(each, 0) for each in made[: STREAMS_MAX + 1]]
        assert [stream is None for stream in streams] == [False] * STREAMS_MAX + [True]


async def test_an_answer_that_cannot_be_stored_is_lost_alone(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        relay = world.engine.relay
        sessions_made = [await session_of(world), await session_of(world)]
        streams = [await relay.connect(session, None) for session in sessions_made]
        stored = await world.accept(3)
        for stream in streams:
            assert stream is not None
            for handed in await stream.next() or ():
                body = "\ud800" if stream is streams[0] and handed.place == stored[1].seq else "fine"
                stream.answered(handed.place, Answer("", 200, 1, None, body, redelivered=False))
        await world.run_for(2 * SECOND)
        kept = [[answer.event_id for answer in await answers(world, session)] for session in sessions_made]
        newest_first = [each.id for each in reversed(stored)]
        assert kept == [[newest_first[0], newest_first[2]], newest_first]
        assert {session.position for session in await sessions(world)} == {stored[2].seq}
        # The loop goes on.
        await world.accept()
        for stream in streams:
            assert stream is not None
            await taken(stream, 1)
        await world.run_for(2 * SECOND)
        assert [len(await answers(world, session)) for session in sessions_made] == [3, 4]


async def test_nothing_is_lost_or_doubled_where_the_database_fails_between_two_that_are_written_alone(
    tmp_path: Path,
) -> None:
    async with World(tmp_path) as world:
        session, relay, database = await session_of(world), world.engine.relay, world.database
        stream = await relay.connect(session, None)
        assert stream is not None
        stored = await world.accept(4)
        for handed in await stream.next() or ():
            body = "\ud800" if handed.place == stored[0].seq else "fine"
            stream.answered(handed.place, Answer("", 200, 1, None, body, redelivered=False))
        writes = 0

        class Failing:
            """The database, which cannot write once: at the second of the answers alone."""

            read = database.read

            async def write(self, body: Any) -> Any:
                nonlocal writes
                writes += 1
                if writes == 3:
                    raise Unavailable("the disk is full")
                return await database.write(body)

        relay.database = Failing()  # type: ignore[assignment]
        await world.run_for(5 * SECOND)
        kept = [answer.event_id for answer in await answers(world, session)]
        assert sorted(kept) == sorted(each.id for each in stored[1:])
