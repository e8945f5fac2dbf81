"""Trace export: collects accepted events and ended attempts, and exports their spans in batches on a thread.

To keep ingest fast, the server stores the parent span of an event in a separate write after the event. A crash between
the two writes loses the link between the sender's trace and the event.
"""

import asyncio
import threading
import uuid
from collections.abc import Sequence
from typing import Final

import structlog

from uplift_server.core.http.trace_context import TraceContext, parse_traceparent
from uplift_server.delivery.ports import Clock
from uplift_server.observe.attempt_log import AttemptLine
from uplift_server.observe.trace_records import AcceptedEvent, EndedAttempt, Tracer
from uplift_server.store import trace_parents
from uplift_server.store.contract import Database
from uplift_server.store.errors import StoreError

EXPORT_EVERY_MS: Final = 500
QUEUE_MAX: Final = 20_000
"""Maximum number of queued events, and also of queued attempts. The exporter drops further items."""
KNOWN_MAX: Final = 20_000
"""Maximum number of events whose parent spans are in memory."""
PARENT_WAIT_MS: Final = 3_000
"""How long the export of an attempt waits for the parent span, in ms. Another process may not have stored it yet."""
LOOKUP_BATCH_MAX: Final = 500
"""Maximum number of events for which one query reads parent spans."""
CLOSE_SECONDS: Final = 0.8
_log = structlog.get_logger()


class Traces:
    """Exports the spans of events and attempts until `stop` is called."""

    def __init__(self, database: Database, clock: Clock, tracer: Tracer) -> None:
        self._database = database
        self._clock = clock
        self._tracer = tracer
        self._events: list[AcceptedEvent] = []
        self._lines: list[AttemptLine] = []
        self._late: list[tuple[int, AttemptLine]] = []
        """The attempts whose parent span is not in memory, each with the time when it was queued (Unix ms)."""
        self._to_store: dict[int, str] = {}
        """The `traceparent` headers to store, by the event's sequence number."""
        self._known: dict[bytes, TraceContext | None] = {}
        """The parent spans of recent events, by event ID. None for an event without a parent span."""
        self._full: dict[str, bool] = {}
        """Whether the exporter dropped the latest items of a queue (`events` or `attempts`)."""
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task that exports spans."""
        self._task = asyncio.create_task(self._run(), name="traces")

    async def stop(self) -> None:
        """Export the remaining spans, for at most CLOSE_SECONDS."""
        self._stopping.set()
        if self._task is not None:
            await self._task
            self._task = None
        # An unresponsive collector must not block the shutdown of the process.
        closing, loop, closed = threading.Event(), asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._tracer.close()
            if not closing.is_set():
                loop.call_soon_threadsafe(closed.set)

        threading.Thread(target=close, name="traces-close", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await closed.wait()
        except TimeoutError:
            _log.warning("trace export incomplete at shutdown")
        finally:
            closing.set()

    def note_event(self, seq: int, event: AcceptedEvent, traceparent: str | None) -> None:
        """Queue an accepted event. The event can be new, or repeat an event that the server had already accepted.

        `seq` is the event's sequence number, or 0 if the database does not contain the event yet.
        """
        if not self._has_room("events", len(self._events)):
            return
        self._events.append(event)
        if not event.repeated:
            self._cache(event.id, event.sender_span)
            if event.sender_span is not None and traceparent is not None and seq:
                self._to_store[seq] = traceparent

    def note_sender(self, seq: int, event_id: bytes, traceparent: str) -> None:
        """Keep the sender's span for an event that another process has accepted."""
        sender_span = parse_traceparent(traceparent)
        if sender_span is not None and len(self._to_store) < KNOWN_MAX:
            self._cache(event_id, sender_span)
            self._to_store[seq] = traceparent

    def note_attempts(self, lines: Sequence[AttemptLine]) -> None:
        """Queue ended attempts. The database already contains their outcomes."""
        if self._has_room("attempts", len(self._lines)):
            self._lines.extend(lines)

    def _has_room(self, name: str, waiting: int) -> bool:
        full = waiting >= QUEUE_MAX
        if full and not self._full.get(name):
            _log.warning("spans dropped", kind=name, how_to_fix="sample fewer traces with OTEL_TRACES_SAMPLER")
        self._full[name] = full
        return not full

    def _cache(self, event_id: bytes, sender_span: TraceContext | None) -> None:
        if len(self._known) >= KNOWN_MAX:
            del self._known[next(iter(self._known))]
        self._known[event_id] = sender_span

    async def _run(self) -> None:
        while not self._stopping.is_set():
            await self._clock.wait(self._stopping, EXPORT_EVERY_MS)
            try:
                await self.export(at_once=self._stopping.is_set())
            except Exception:
                # A defect in traces must not affect deliveries.
                _log.exception("trace export failed")

    async def export(self, *, at_once: bool = False) -> None:
        """Export the queued events and attempts.

        If `at_once` is set, do not wait until other processes have stored parent spans.
        """
        events, self._events = self._events, []
        lines, self._lines = self._lines, []
        to_store, self._to_store = self._to_store, {}
        try:
            if to_store:
                await self._database.write(lambda c: trace_parents.put(c, to_store))
        except StoreError:
            # Retry the rows with the next batch. Keep at most KNOWN_MAX rows.
            self._to_store = dict([*to_store.items(), *self._to_store.items()][-KNOWN_MAX:])
        try:
            attempts = await self._with_parents(self._split_ready(lines, at_once=at_once))
        except StoreError:
            attempts = []
        if events or attempts:
            await asyncio.to_thread(self._tracer.record, events, attempts)

    def _split_ready(self, lines: Sequence[AttemptLine], *, at_once: bool) -> list[AttemptLine]:
        """Return the attempts that can be exported now. Keep the other attempts for a later call.

        An attempt can be exported if its parent span is in memory, or after it has waited PARENT_WAIT_MS for the span.
        If `at_once` is set, all attempts can be exported.
        """
        now = self._clock.now_ms()
        ready = []
        for line in lines:
            if uuid.UUID(line.event).bytes in self._known:
                ready.append(line)
            else:
                self._late.append((now, line))
        del self._late[:-QUEUE_MAX]
        until = now if at_once else now - PARENT_WAIT_MS
        ready += [line for came_at, line in self._late if came_at <= until]
        self._late = [late for late in self._late if late[0] > until]
        return ready

    async def _with_parents(self, lines: Sequence[AttemptLine]) -> list[EndedAttempt]:
        """Return attempts with their parent spans. If the store fails, queue the attempts again and raise the error."""
        try:
            return await self._look_up_parents(lines)
        except StoreError:
            self._lines = [*lines, *self._lines][-QUEUE_MAX:]
            raise

    async def _look_up_parents(self, lines: Sequence[AttemptLine]) -> list[EndedAttempt]:
        ids = {line.event: uuid.UUID(line.event).bytes for line in lines}
        senders = {event_id: self._known[event_id] for event_id in ids.values() if event_id in self._known}
        unknown = [event_id for event_id in ids.values() if event_id not in senders]
        for start in range(0, len(unknown), LOOKUP_BATCH_MAX):
            part = unknown[start : start + LOOKUP_BATCH_MAX]
            found = await self._database.read(lambda c: trace_parents.of_events(c, part))  # noqa: B023 - run before the next turn
            for event_id in part:
                senders[event_id] = parse_traceparent(found.get(event_id, ""))
                self._cache(event_id, senders[event_id])
        return [EndedAttempt(line, senders[ids[line.event]]) for line in lines]
