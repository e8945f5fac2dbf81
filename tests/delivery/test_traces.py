"""Traces: every event and attempt is exported once, with the span of the sender, despite outages and restarts."""

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

from .world import SECOND, World, respond

SENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SENDER = parse_traceparent(SENT)


class Recorder:
    """A tracer that records everything."""

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
    """A tracer that fails at first."""

    calls = 0

    def record(self, events: Sequence[AcceptedEvent], attempts: Sequence[EndedAttempt]) -> None:
        self.calls += 1
        if self.calls == 1:
            raise ValueError("a defect")
        super().record(events, attempts)


def accepted(stored: Any, sender_span: TraceContext | None = SENDER, *, repeated: bool = False) -> AcceptedEvent:
    return AcceptedEvent(stored.id, "a.b", "acc_1", 1, 2, sender_span, repeated)


async def test_attempts_have_the_parent_span_of_their_event_after_a_restart(place: Place) -> None:
    async with World(place) as world:
        replies = iter([respond(500), respond(200), respond(500)])
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


async def test_trace_contexts_of_senders_are_stored_once(place: Place) -> None:
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


async def test_no_spans_are_lost_while_the_database_is_unavailable(
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


async def test_attempts_wait_for_the_trace_context_of_another_process(place: Place) -> None:
    """Another process may have just accepted the event, and not yet stored its trace context."""
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


async def test_the_trace_context_of_an_event_in_the_stream_is_stored_with_the_event(place: Place) -> None:
    async with World(place) as world:
        await world.endpoint("one.test")
        tracer = Recorder()
        accepting, storing, sending = (Traces(world.database, world.clock, tracer) for _ in range(3))
        [stored] = await world.accept()
        # An event that is accepted through the event stream has no number yet.
        accepting.note_event(0, accepted(stored), SENT)
        await accepting.export()
        storing.note_sender(stored.seq, stored.id, SENT)
        storing.note_sender(stored.seq, stored.id, "nonsense")
        await storing.export()
        sending.note_attempts(world.lines)
        await sending.export(at_once=True)

        assert [event.id for event in tracer.events] == [stored.id]
        assert tracer.senders == [SENDER]


async def test_queues_and_the_cache_are_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_dropped_spans_are_logged_once_per_kind(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
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
        dropped = [line["kind"] for line in logs if line["event"].startswith("spans dropped")]
        assert dropped == ["events", "attempts"]


async def test_a_lookup_of_old_events_keeps_the_events_of_the_batch(
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
async def test_a_hanging_collector_does_not_delay_the_stop(place: Place) -> None:
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
        # Items that were recorded before the stop are still exported.
        assert len(tracer.events) == 1


async def test_a_trace_context_is_stored_again_after_a_lost_response(
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


async def test_a_defect_in_the_tracer_does_not_stop_the_export(place: Place) -> None:
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
