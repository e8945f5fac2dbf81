"""Traces: every event and attempt is handed over once, with the span its sender named, over outages and restarts."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.engines import Place

from uplift_server.core.http.trace_context import TraceContext, parse_traceparent
from uplift_server.delivery import tracing
from uplift_server.delivery.tracing import Traces
from uplift_server.observe.trace_records import AcceptedEvent, EndedAttempt
from uplift_server.store import trace_parents
from uplift_server.store.errors import Unavailable

from .world import SECOND, World, answer

SENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SENDER = parse_traceparent(SENT)


class Recorder:
    """A tracer that keeps everything."""

    def __init__(self) -> None:
        self.events: list[AcceptedEvent] = []
        self.attempts: list[EndedAttempt] = []
        self.closes_after_s = 0.0

    def record(self, events: Sequence[AcceptedEvent], attempts: Sequence[EndedAttempt]) -> None:
        self.events += events
        self.attempts += attempts

    def close(self) -> None:
        time.sleep(self.closes_after_s)

    @property
    def senders(self) -> list[TraceContext | None]:
        return [attempt.sender_span for attempt in self.attempts]


class Broken(Recorder):
    """One that has a defect at first."""

    calls = 0

    def record(self, events: Sequence[AcceptedEvent], attempts: Sequence[EndedAttempt]) -> None:
        self.calls += 1
        if self.calls == 1:
            raise ValueError("a defect")
        super().record(events, attempts)


def accepted(stored: Any, sender_span: TraceContext | None = SENDER, *, repeated: bool = False) -> AcceptedEvent:
    return AcceptedEvent(stored.id, "a.b", "acc_1", 1, 2, sender_span, repeated)


async def test_attempts_come_with_the_span_their_event_was_sent_in_also_after_a_restart(place: Place) -> None:
    async with World(place) as world:
        replies = iter([answer(500), answer(200), answer(500)])
        await world.endpoint("one.test", lambda _: next(replies))
        tracer = Recorder()
        gathered = Traces(world.database, world.clock, tracer)
        [stored] = await world.accept()
        gathered.note_event(stored.seq, accepted(stored), SENT)
        gathered.note_attempts(world.lines)
        await gathered.export()
        assert tracer.senders == [SENDER]

        world.lines.clear()
        await world.restart()
        await world.run_for(10 * SECOND)
        [other] = await world.accept()
        later = Traces(world.database, world.clock, tracer)
        later.note_attempts(world.lines)
        await later.export(at_once=True)

        assert [attempt.line.attempt for attempt in tracer.attempts] == [1, 2, 1]
        assert tracer.senders == [SENDER, SENDER, None]
        assert other.id != stored.id


async def test_only_what_senders_told_is_stored_and_of_each_event_once(place: Place) -> None:
    async with World(place) as world:
        gathered = Traces(world.database, world.clock, Recorder())
        first, second, third = await world.accept(3)
        gathered.note_event(first.seq, accepted(first), SENT)
        gathered.note_event(second.seq, accepted(second, None), "nonsense")
        gathered.note_event(third.seq, accepted(third, None), None)
        await gathered.export()
        gathered.note_event(first.seq, accepted(first, repeated=True), SENT)
        await gathered.export()

        ids = [first.id, second.id, third.id]
        assert await world.database.read(lambda c: trace_parents.of_events(c, ids)) == {first.id: SENT}


async def test_nothing_is_lost_while_the_database_does_not_answer(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World(place) as world:
        await world.endpoint("one.test")
        tracer = Recorder()
        gathered = Traces(world.database, world.clock, tracer)
        [stored] = await world.accept()

        async def unavailable(_: Any) -> Any:
            raise Unavailable("not now")

        with monkeypatch.context() as patch:
            patch.setattr(world.database, "read", unavailable)
            patch.setattr(world.database, "write", unavailable)
            gathered.note_attempts(world.lines)
            await gathered.export(at_once=True)
            gathered.note_event(stored.seq, accepted(stored), SENT)
            assert tracer.attempts == []
        await gathered.export()
        await gathered.export()

        assert tracer.senders == [SENDER]
        assert await world.database.read(lambda c: trace_parents.of_events(c, [stored.id])) == {stored.id: SENT}


async def test_attempts_wait_until_whoever_accepted_their_event_has_stored_its_trace(place: Place) -> None:
    """Another process may have, a moment ago."""
    async with World(place) as world:
        await world.endpoint("one.test")
        tracer = Recorder()
        accepting, sending = (Traces(world.database, world.clock, tracer) for _ in range(2))
        [stored] = await world.accept()
        sending.note_attempts(world.lines)
        await sending.export()
        accepting.note_event(stored.seq, accepted(stored), SENT)
        await accepting.export()
        world.clock.now += tracing.PARENT_WAIT_MS - 1
        await sending.export()
        assert tracer.attempts == []
        world.clock.now += 1
        await sending.export()

        assert tracer.senders == [SENDER]


async def test_what_waits_and_what_is_known_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "QUEUE_MAX", 3)
    monkeypatch.setattr(tracing, "KNOWN_MAX", 2)
    async with World(place) as world:
        tracer = Recorder()
        gathered = Traces(world.database, world.clock, tracer)
        for stored in await world.accept(5):
            gathered.note_event(stored.seq, accepted(stored), SENT)
        await gathered.export()

        assert len(tracer.events) == 3
        assert len(gathered._known) == 2


async def test_of_events_and_of_attempts_it_is_told_once_that_they_are_dropped(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "QUEUE_MAX", 1)
    async with World(place) as world:
        await world.endpoint("one.test")
        gathered = Traces(world.database, world.clock, Recorder())
        [stored] = await world.accept()
        with capture_logs() as logs:
            gathered.note_event(stored.seq, accepted(stored), SENT)
            gathered.note_attempts(world.lines)
            for _ in range(3):
                gathered.note_event(stored.seq, accepted(stored), SENT)
                gathered.note_attempts(world.lines)
        dropped = [line["spans"] for line in logs if line["event"].startswith("spans dropped")]
        assert dropped == ["events", "attempts"]


async def test_looking_up_old_events_forgets_none_that_comes_with_them(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "KNOWN_MAX", 1)
    async with World(place) as world:
        await world.endpoint("one.test")
        tracer = Recorder()
        gathered = Traces(world.database, world.clock, tracer)
        for stored in await world.accept(3):
            gathered.note_event(stored.seq, accepted(stored), SENT)
        await gathered.export()
        gathered.note_attempts(list(reversed(world.lines)))
        await gathered.export(at_once=True)
        assert tracer.senders == [SENDER] * 3


@pytest.mark.timing
async def test_a_collector_that_hangs_does_not_hold_up_the_stop(place: Place) -> None:
    async with World(place) as world:
        tracer = Recorder()
        tracer.closes_after_s = 5
        gathered = Traces(world.database, world.clock, tracer)
        [stored] = await world.accept()
        gathered.start()
        await asyncio.sleep(0)
        gathered.note_event(stored.seq, accepted(stored), SENT)
        began = time.monotonic()
        await gathered.stop()

        assert time.monotonic() - began < 2
        # What was noted is handed over first.
        assert len(tracer.events) == 1


async def test_a_trace_that_was_stored_though_the_answer_was_lost_is_told_again_without_harm(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World(place) as world:
        tracer = Recorder()
        gathered = Traces(world.database, world.clock, tracer)
        write = world.database.write

        async def lost(body: Any) -> Any:
            await write(body)
            raise Unavailable("the answer was lost")

        first, second = await world.accept(2)
        gathered.note_event(first.seq, accepted(first), SENT)
        with monkeypatch.context() as patch:
            patch.setattr(world.database, "write", lost)
            await gathered.export()
        gathered.note_event(second.seq, accepted(second), SENT)
        await gathered.export()

        ids = [first.id, second.id]
        assert await world.database.read(lambda c: trace_parents.of_events(c, ids)) == dict.fromkeys(ids, SENT)
        assert [event.id for event in tracer.events] == ids


async def test_a_defect_in_the_making_of_traces_does_not_end_it(place: Place) -> None:
    async with World(place) as world:
        tracer = Broken()
        gathered = Traces(world.database, world.clock, tracer)
        gathered.start()
        with capture_logs() as logs:
            for stored in await world.accept(2):
                gathered.note_event(stored.seq, accepted(stored), SENT)
                calls = tracer.calls
                await world.run_for(tracing.EXPORT_EVERY_MS)
                async with asyncio.timeout(10):
                    while tracer.calls == calls:
                        await asyncio.sleep(0.01)
            await gathered.stop()

        assert (tracer.calls, len(tracer.events)) == (2, 1)
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["trace export failed"]
