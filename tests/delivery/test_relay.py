"""Streams to developers' machines over simulated days: what is kept of them, and for how long."""

from pathlib import Path

import pytest

from uplift_server.core.listening import ANSWERS_KEPT_MAX, UNANSWERED_EVENTS_MAX, Answer
from uplift_server.delivery.relay import STREAMS_MAX, Ending, Handed, Stream
from uplift_server.store import listening
from uplift_server.store.errors import Conflict
from uplift_server.store.listening import ListenSession, StoredAnswer

from .world import DAY, HOUR, SECOND, World


async def session_of(world: World, event_types: tuple[str, ...] = ()) -> ListenSession:
    session_id = world.fresh_id()
    return await world.database.write(
        lambda c: listening.create(
            c,
            session_id=session_id,
            account_seq=world.account.seq,
            key_id=b"k" * 16,
            description="ana-laptop",
            event_types=event_types,
            since=None,
            after_event=None,
            now=world.clock.now,
        )
    )


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
        stream = world.engine.relay.connect(used, None)
        assert stream is not None
        await world.run_for(DAY - HOUR)
        assert {session.id for session in await sessions(world)} == {unused.id, used.id}
        await world.run_for(2 * HOUR + SECOND)
        assert [session.id for session in await sessions(world)] == [used.id]
        world.engine.relay.disconnect(stream)
        await world.run_for(DAY + 2 * HOUR)
        assert await sessions(world) == []


async def test_what_is_unanswered_is_bounded_and_its_place_is_where_the_first_unanswered_one_is(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        session = await session_of(world)
        stream = world.engine.relay.connect(session, None)
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
        again = world.engine.relay.connect(found, None)
        assert again is not None
        assert [handed.place for handed in await taken(again, 71)] == [each.seq for each in stored[3:]]


async def test_the_newest_answers_are_kept(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        session = await session_of(world)
        stream = world.engine.relay.connect(session, None)
        assert stream is not None
        stored = await world.accept(ANSWERS_KEPT_MAX + 50)
        await taken(stream, len(stored))
        await world.run_for(2 * SECOND)
        kept = await answers(world, session)
        assert [answer.event_id for answer in kept] == [each.id for each in reversed(stored[50:])]


async def test_a_stop_ends_every_stream_and_one_that_is_begun_then(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        session, other = await session_of(world), await session_of(world)
        stream = world.engine.relay.connect(session, None)
        assert stream is not None
        await world.stepping(world.engine.drain())
        assert await stream.next() is None
        assert stream.ending is Ending.STOPPING
        late = world.engine.relay.connect(other, None)
        assert late is not None
        assert await late.next() is None


async def test_sessions_and_streams_are_bounded(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        for _ in range(50):
            await session_of(world)
        with pytest.raises(Conflict, match="at most 50 listen sessions"):
            await session_of(world)
        made = [
            ListenSession(n, n.to_bytes(16, "big"), world.account.seq, b"", b"", "", (), 0, 0, 0)
            for n in range(1, STREAMS_MAX + 2)
        ]
        streams = [world.engine.relay.connect(each, 0) for each in made]
        assert [stream is None for stream in streams] == [False] * STREAMS_MAX + [True]
