"""The listener, which forwards each event of a session's stream once, one event at a time, in order.

If the connection is lost, the listener reconnects and keeps the events that it has received. A new connection continues
with the first event that has no response. The listener recognizes repeated events by their positions in the stream.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from uplift_webhooks.cli.kit.errors import ExitCode
from uplift_webhooks.cli.listening import mischief as mischief_of
from uplift_webhooks.cli.listening.frames import (
    EventFrame,
    LocalResponse,
    NotAFrame,
    answer_frame,
    is_ready,
    read_event,
)
from uplift_webhooks.cli.listening.handover import Handing, Taker
from uplift_webhooks.cli.listening.mischief import Mischief
from uplift_webhooks.cli.listening.stream import (
    CLOSE_SECONDS,
    OPEN_SECONDS,
    Address,
    Ended,
    Lost,
    abort,
    end_of,
    open_stream,
)
from uplift_webhooks.cli.listening.waits import within

WAITING_EVENTS_MAX: Final = 1024
"""Maximum number of received events without a response. A correct server pauses the stream after 64 such events."""


@dataclass(frozen=True)
class Timing:
    """The intervals and time limits for a listener, in seconds."""

    first_wait_seconds: float = 0.2
    longest_wait_seconds: float = 10.0
    settled_seconds: float = 5.0
    """If a connection lasted at least this many seconds, the listener reconnects after the shortest interval."""
    ping_seconds: float = 20.0
    """The interval between pings, in seconds. The listener detects a dead connection within twice this time."""
    give_up_seconds: float | None = None
    """Maximum time without a connection before the listener ends, in seconds. None means no limit."""
    clock_look_seconds: float = 1.0
    clock_jump_seconds: float = 5.0
    """Smallest forward jump of the clock, in seconds, after which the listener assumes that the machine was asleep."""
    wall_seconds: Callable[[], float] = time.time


class Expired(Exception):
    """The server deleted the session while the listener was disconnected.

    A new session can continue from the position of the deleted session.
    """

    def __init__(self, behind: str | None, begun: Mapping[str, int]) -> None:
        """`behind` is the ID of the newest event up to which all events have a response, or None.

        `begun` maps the IDs of later events to the number of requests that the listener started for each event. The
        next session receives the later events again.
        """
        super().__init__("the session has expired")
        self.behind = behind
        self.begun = begun


class Watcher(Protocol):
    """Interface for objects that report the listener's progress."""

    def ready(self) -> None:
        """Report that the stream has started."""

    def reconnecting(self, why: str, wait_seconds: float) -> None:
        """Report why there is no connection, and how many seconds remain until the next attempt."""

    def reconnected(self) -> None:
        """Report that the connection is open again."""

    def delivery(self, event: EventFrame, answer: LocalResponse, *, again: bool, comes_again: bool) -> None:
        """Report that an event was forwarded or printed.

        `again`: the event was forwarded before. `comes_again`: the listener will forward the event again.
        """


@dataclass(eq=False)
class _Waiting(Handing):
    """A received event. The Uplift server may not have received the response to it yet."""

    connection: int = field(kw_only=True)
    """The number of the connection on which the event last arrived."""
    duplicated: bool = False
    failed: bool = False
    """Whether the listener has already simulated a failure for this event."""
    answer: LocalResponse | None = None
    over: bool = False
    """Whether the Uplift server has received the response to this event, or no longer waits for it."""


class Listener:
    """Receives and forwards the events of one session. `run` ends only with Ended, Expired or a cancellation."""

    def __init__(
        self,
        address: Address,
        taker: Taker,
        watcher: Watcher,
        *,
        timing: Timing | None = None,
        mischief: Mischief = mischief_of.NONE,
        begun: Mapping[str, int] | None = None,
    ) -> None:
        """`begun` maps event IDs to the number of requests that the previous session started for each event.

        The mapping comes from that session's Expired error.
        """
        self._address = address
        self._taker = taker
        self._watcher = watcher
        self._timing = Timing() if timing is None else timing
        self._mischief = mischief
        self._begun = dict(begun or {})
        self._place: str | None = None
        self._behind: str | None = None
        """The ID of the event at `_place`, the position after which a new connection continues. None at the start."""
        self._waiting: dict[str, _Waiting] = {}
        """The received events after position `_place`, in stream order, without test events.

        The keys are positions in the stream.
        """
        self._todo: deque[_Waiting] = deque()
        self._later: list[tuple[float, _Waiting]] = []
        """The time of the retry (monotonic, in seconds) and the event, for each event with a simulated failure."""
        self._came = asyncio.Event()
        self._answered: deque[_Waiting] = deque()
        self._to_answer = asyncio.Event()
        self._connections = 0
        self._open: ClientConnection | None = None
        self._newest: ClientConnection | None = None
        """The connection that was opened last. It may not be ready yet, or may already be closed."""
        self._hurry = asyncio.Event()
        self._slept = False

    async def run(self) -> None:
        """Receive and forward events until the task is cancelled. Raises Ended or Expired."""
        try:
            await _first_of(self._stay_connected(), self._hand_over(), self._watch_clock())
        except Ended as ended:
            # Create the Expired error only here, after the last delivery has ended, so that it includes this delivery.
            if ended.code is ExitCode.NOT_FOUND and not ended.unknown and self._connections:
                raise self._expired() from ended
            raise
        finally:
            # Abort a connection that opened while the task was cancelled.
            if self._newest is not None:
                abort(self._newest)
            self._taker.close()

    async def _stay_connected(self) -> None:
        timing = self._timing
        wait = timing.first_wait_seconds
        lost_at = time.monotonic()
        while True:
            left = None if timing.give_up_seconds is None else lost_at + timing.give_up_seconds - time.monotonic()
            began = time.monotonic()
            ready = self._connections
            try:
                await self._connection(OPEN_SECONDS * 2 if left is None else max(min(OPEN_SECONDS * 2, left), 0.0))
            except Lost as lost:
                why = str(lost)
            if self._connections > ready:
                lost_at = time.monotonic()
                if lost_at - began >= timing.settled_seconds:
                    wait = timing.first_wait_seconds
            self._open = None
            pause = wait * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, guards nothing
            if self._slept:
                why, pause = "this machine was asleep, or its clock changed", 0.0
            if timing.give_up_seconds is not None:
                left = lost_at + timing.give_up_seconds - time.monotonic()
                if left <= 0:
                    cause = f"not connected for {timing.give_up_seconds:g} seconds: {why}"
                    raise Ended(cause, "repeat the command when the server is reachable", ExitCode.TRY_LATER)
                pause = min(pause, left)
            self._watcher.reconnecting(why, pause)
            self._slept = False
            self._hurry.clear()
            with suppress(asyncio.TimeoutError):
                await within(pause, self._hurry.wait())
            wait = min(wait * 2, timing.longest_wait_seconds)

    async def _connection(self, within_seconds: float) -> None:
        """Open one connection and receive events until it ends. Raises Lost or Ended."""
        try:
            socket = await within(within_seconds, self._opened())
        except asyncio.TimeoutError as error:
            raise Lost("the server did not become ready in time") from error
        self._open = socket
        self._connections += 1
        self._answered.clear()
        try:
            if self._connections == 1:
                self._watcher.ready()
            else:
                self._watcher.reconnected()
            await _first_of(self._read(socket), self._answer(socket))
        except ConnectionClosed as error:
            raise end_of(error) from error
        except NotAFrame as error:
            raise Lost(f"the server sent {error}") from error
        finally:
            # A clean close sends the last responses first.
            with suppress(asyncio.TimeoutError, ConnectionClosed):
                await within(CLOSE_SECONDS, socket.close())
            abort(socket)

    async def _opened(self) -> ClientConnection:
        """Open a connection and wait for the server's ready frame. Return the connection."""
        socket = await open_stream(self._address, self._place, ping_seconds=self._timing.ping_seconds)
        self._newest = socket
        try:
            while not is_ready(await socket.recv()):
                pass
        except ConnectionClosed as error:
            raise end_of(error) from error
        except NotAFrame as error:
            raise Lost(f"the server is not an Uplift Webhooks server: it sent {error}") from error
        except asyncio.CancelledError:
            abort(socket)
            raise
        return socket

    async def _read(self, socket: ClientConnection) -> None:
        while True:
            frame = await socket.recv()
            # Ignore text frames, because servers from later releases may send new kinds of frames.
            if isinstance(frame, bytes):
                self._take_in(read_event(frame))

    def _take_in(self, event: EventFrame) -> None:
        number = self._connections
        if event.test:
            self._todo.append(_Waiting(event, connection=number))
            self._came.set()
            return
        known = self._waiting.get(event.place)
        # The server sends events in order, and skips expired events and events whose responses it has received.
        # Therefore, it no longer waits for responses to earlier events from earlier connections.
        for place, earlier in self._waiting.items():
            if place == event.place or earlier.connection == number:
                break
            earlier.over = True
        self._advance()
        if known is not None:
            known.connection = number
            if known.answer is not None:
                self._say(known)
            return
        if len(self._waiting) >= WAITING_EVENTS_MAX:
            raise NotAFrame(f"more than {WAITING_EVENTS_MAX} events without waiting for responses")
        waiting = self._waiting[event.place] = _Waiting(event, self._begun.pop(event.event, 0), connection=number)
        self._todo.append(waiting)
        self._came.set()

    def _say(self, waiting: _Waiting) -> None:
        self._answered.append(waiting)
        self._to_answer.set()

    async def _answer(self, socket: ClientConnection) -> None:
        """Send the local server's responses to the Uplift server, which resends each event that has no response."""
        while True:
            self._to_answer.clear()
            while self._answered:
                waiting = self._answered.popleft()
                if waiting.connection != self._connections or waiting.answer is None:
                    continue
                again = waiting.times > 1
                await socket.send(answer_frame(waiting.event.place, waiting.answer, redelivered=again))
                waiting.over = True
                self._advance()
            await self._to_answer.wait()

    def _advance(self) -> None:
        """Remove the finished events at the start of `_waiting`. Store the position of the last removed event.

        An event is finished if the local server has responded, and the Uplift server has received the response or no
        longer waits for it.
        """
        done = []
        for place, waiting in self._waiting.items():
            if not waiting.over or waiting.answer is None:
                break
            done.append(place)
        for place in done:
            self._behind = self._waiting.pop(place).event.event
            self._place = place

    def _expired(self) -> Expired:
        """Return an Expired error with the session's progress, including responses that the server has not received."""
        behind = self._behind
        later = [*self._waiting.values()]
        while later and later[0].answer is not None:
            behind = later.pop(0).event.event
        begun = {**self._begun, **{waiting.event.event: waiting.times for waiting in later if waiting.times}}
        # Keep only the newest entries. The server does not send the oldest events again, because it has deleted them.
        return Expired(behind, dict([*begun.items()][-WAITING_EVENTS_MAX:]))

    async def _hand_over(self) -> None:
        while True:
            waiting = await self._next()
            answer = await self._taker.take(waiting)
            reached = answer.status_code is not None
            if reached and self._mischief.duplicate and not waiting.duplicated:
                waiting.duplicated = True
                self._todo.appendleft(waiting)
            elif reached and not waiting.failed and self._mischief.fails():
                waiting.failed = True
                self._later.append((time.monotonic() + self._mischief.retry_seconds(), waiting))
            else:
                waiting.answer = answer
                self._say(waiting)
                self._advance()
            comes_again = waiting.answer is None
            self._watcher.delivery(waiting.event, answer, again=waiting.times > 1, comes_again=comes_again)

    async def _next(self) -> _Waiting:
        if self._mischief.shuffle and not self._later and len(self._todo) < 2:
            await self._something(None)
            await asyncio.sleep(mischief_of.SHUFFLED_SECONDS)
        while True:
            now = time.monotonic()
            due = min(self._later, key=lambda each: each[0], default=None)
            if due is not None and due[0] <= now:
                self._later.remove(due)
                return due[1]
            if self._todo:
                chosen = self._todo[self._mischief.chosen(len(self._todo))]
                self._todo.remove(chosen)
                return chosen
            await self._something(None if due is None else due[0] - now)

    async def _something(self, within_seconds: float | None) -> None:
        self._came.clear()
        if not self._todo:
            with suppress(asyncio.TimeoutError):
                await within(within_seconds, self._came.wait())

    async def _watch_clock(self) -> None:
        """Close the connection after the machine wakes from sleep, so that the listener opens a new one immediately."""
        timing = self._timing
        while True:
            expected = timing.wall_seconds() + timing.clock_look_seconds
            await asyncio.sleep(timing.clock_look_seconds)
            if timing.wall_seconds() - expected >= timing.clock_jump_seconds:
                self._slept = True
                self._hurry.set()
                if self._open is not None:
                    abort(self._open)


async def _first_of(*work: Coroutine[Any, Any, None]) -> None:
    """Run all coroutines until one ends, and then cancel the others.

    If the coroutine that ended raised an error, raise the same error.
    """
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
