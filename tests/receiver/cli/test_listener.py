"""The listener with a scripted stream: in order, once, also after lost connections and sleep."""

import asyncio
import time

from websockets.asyncio.server import ServerConnection

from .relaying import WITHIN_SECONDS, Relay, frame, listening, until


async def test_events_are_handed_over_in_order_and_answered() -> None:
    async with Relay([*range(100)]).serving() as relay, listening(relay) as (taken, told, _):
        await until(lambda: len(relay.answers) == 100)
        assert taken.numbers == [*range(100)]
        assert relay.answers[7] == {
            "kind": "answer",
            "place": "p0007",
            "status_code": 200,
            "duration_ms": 1,
            "error": None,
            "body": "ok",
            "redelivered": False,
        }
        assert told.lines == ["ready", *(f"e{number}" for number in range(100))]


async def test_it_is_ready_only_when_the_server_has_said_so() -> None:
    async def silent(relay: Relay, socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with Relay([1], [silent]).serving() as relay, listening(relay) as (_, told, _task):
        await until(lambda: relay.asked)
        await asyncio.sleep(0.1)  # enough time for an unexpected event
        assert told.lines == []


async def test_it_goes_on_behind_what_was_answered_and_hands_over_nothing_twice() -> None:
    async def die_after(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(10):
            await socket.send(frame(number))
        for _ in range(4):
            await relay.answer(socket)
        socket.transport.abort()

    async with Relay([*range(12)], [die_after]).serving() as relay, listening(relay, seconds=0.02) as (taken, told, _):
        await until(lambda: len(taken.numbers) == 12)
        assert taken.numbers == [*range(12)]
        assert relay.asked[0] is None
        assert relay.asked[1] in {"p0003", "p0004"}
        # All have a response, also the events that were forwarded during the disconnection.
        await until(lambda: {each["place"] for each in relay.answers} == {f"p{n:04}" for n in range(12)})
        assert told.lines.count("ready") == told.lines.count("reconnected") == 1
        assert told.reasons == ["the connection was lost"]


async def test_what_the_server_sends_no_more_is_not_waited_for() -> None:
    opened = asyncio.Event()

    async def die_at_once(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(3):
            await socket.send(frame(number))
        await (await socket.ping())
        socket.transport.abort()

    async def only_later_ones(relay: Relay, socket: ServerConnection) -> None:
        # The first three have expired.
        await socket.send('{"kind": "ready"}')
        await socket.send(frame(3))
        await (await socket.ping())
        opened.set()
        await relay.answer(socket)
        socket.transport.abort()

    async with (
        Relay([*range(5)], [die_at_once, only_later_ones]).serving() as relay,
        listening(relay, opened=False) as (taken, _, _task),
    ):
        taken.opened = opened
        await until(lambda: len(taken.numbers) == 5)
        assert taken.numbers == [*range(5)]
        assert relay.asked == [None, None, "p0003"]


async def test_a_test_is_answered_over_the_connection_it_came_by_and_no_place() -> None:
    async def test_and_die(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        await socket.send(frame(1, test=True))
        await relay.answer(socket)
        await socket.send(frame(2, test=True))
        socket.transport.abort()

    async with Relay([7], [test_and_die]).serving() as relay, listening(relay) as (taken, _, _task):
        await until(lambda: len(relay.answers) == 2)
        assert [each["place"] for each in relay.answers] == ["test-1", "p0007"]
        assert relay.asked == [None, None]
        assert taken.numbers[0] == 1


async def test_a_clock_that_jumps_replaces_the_connection_at_once() -> None:
    wall = [time.time()]

    def now() -> float:
        return wall[0] + time.monotonic()

    waits = {"first_wait_seconds": 30, "longest_wait_seconds": 30}
    async with Relay([1]).serving() as relay, listening(relay, wall_seconds=now, **waits) as (_, told, _task):
        await until(lambda: relay.answers)
        wall[0] += 600  # the machine was asleep for 10 minutes
        await until(lambda: "reconnected" in told.lines)
        assert "asleep" in told.reasons[0]
        assert relay.asked == [None, "p0001"]
        # A clock that moves back or a little ahead has no effect.
        wall[0] -= 3600
        await asyncio.sleep(0.1)
        wall[0] += 1
        await asyncio.sleep(0.1)
        assert told.lines.count("reconnecting") == 1


async def test_after_sleep_a_long_wait_for_the_next_try_ends_too() -> None:
    wall = [0.0]

    async def die(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')

    async with Relay([1], [die]).serving() as relay:
        waits = {"first_wait_seconds": 60, "longest_wait_seconds": 60}
        async with listening(relay, wall_seconds=lambda: wall[0] + time.monotonic(), **waits) as (_, told, _task):
            await until(lambda: "reconnecting" in told.lines)
            wall[0] += 600
            await until(lambda: relay.answers)


async def test_a_connection_that_falls_silent_is_noticed_by_its_pings() -> None:
    async def deaf(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        # Like a lost machine, it receives data and never responds.
        socket.transport.pause_reading()
        await socket.wait_closed()

    async with Relay([1], [deaf]).serving() as relay, listening(relay, ping_seconds=0.3) as (_, told, _task):
        await until(lambda: relay.answers)
        assert told.reasons == ["the server stopped responding"]


async def test_a_slow_local_server_does_not_make_the_connection_look_dead() -> None:
    async def ping(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(64):
            await socket.send(frame(number))
        # Both sides respond to pings for longer than the listener's timeout.
        for _ in range(30):
            await asyncio.wait_for(await socket.ping(), WITHIN_SECONDS)
            await asyncio.sleep(0.1)
        taken.opened.set()
        await relay.answer(socket)
        await socket.wait_closed()

    async with (
        Relay([], [ping]).serving() as relay,
        listening(relay, opened=False, ping_seconds=1) as (taken, told, _task),
    ):
        await until(lambda: relay.answers)
        assert "reconnecting" not in told.lines
