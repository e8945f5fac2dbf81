"""The listener forwards events once and in order, even if a connection is lost or the machine sleeps."""

import asyncio
import time

from websockets.asyncio.server import ServerConnection

from .listen_harness import WITHIN_SECONDS, ListenServer, frame, listening, wait_until


async def test_events_are_forwarded_in_order_and_responses_are_sent() -> None:
    async with ListenServer([*range(100)]).serving() as server, listening(server) as (local, progress, _):
        await wait_until(lambda: len(server.responses) == 100)
        assert local.numbers == [*range(100)]
        assert server.responses[7] == {
            "kind": "answer",
            "place": "p0007",
            "status_code": 200,
            "duration_ms": 1,
            "error": None,
            "body": "ok",
            "redelivered": False,
        }
        assert progress.lines == ["ready", *(f"e{number}" for number in range(100))]


async def test_the_listener_is_ready_after_the_servers_ready_message() -> None:
    async def silent(server: ListenServer, socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with ListenServer([1], [silent]).serving() as server, listening(server) as (_, progress, _task):
        await wait_until(lambda: server.positions)
        await asyncio.sleep(0.1)  # enough time for an unexpected ready message
        assert progress.lines == []


async def test_reconnect_resumes_after_the_last_response_without_duplicates() -> None:
    async def drop_after_four_responses(server: ListenServer, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(10):
            await socket.send(frame(number))
        for _ in range(4):
            await server.receive_response(socket)
        socket.transport.abort()

    async with (
        ListenServer([*range(12)], [drop_after_four_responses]).serving() as server,
        listening(server, seconds=0.02) as (local, progress, _),
    ):
        await wait_until(lambda: len(local.numbers) == 12)
        assert local.numbers == [*range(12)]
        assert server.positions[0] is None
        assert server.positions[1] in {"p0003", "p0004"}
        # Events that were forwarded while the listener was disconnected also have a response.
        await wait_until(lambda: {each["place"] for each in server.responses} == {f"p{n:04}" for n in range(12)})
        assert progress.lines.count("ready") == progress.lines.count("reconnected") == 1
        assert progress.reasons == ["the connection was lost"]


async def test_expired_events_do_not_delay_later_events() -> None:
    opened = asyncio.Event()

    async def drop_before_responses(server: ListenServer, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(3):
            await socket.send(frame(number))
        await (await socket.ping())
        socket.transport.abort()

    async def send_later_events(server: ListenServer, socket: ServerConnection) -> None:
        # The first three events have expired.
        await socket.send('{"kind": "ready"}')
        await socket.send(frame(3))
        await (await socket.ping())
        opened.set()
        await server.receive_response(socket)
        socket.transport.abort()

    async with (
        ListenServer([*range(5)], [drop_before_responses, send_later_events]).serving() as server,
        listening(server, opened=False) as (local, _, _task),
    ):
        local.opened = opened
        await wait_until(lambda: len(local.numbers) == 5)
        assert local.numbers == [*range(5)]
        assert server.positions == [None, None, "p0003"]


async def test_test_event_responses_stay_on_their_connection() -> None:
    async def send_tests_and_drop(server: ListenServer, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        await socket.send(frame(1, test=True))
        await server.receive_response(socket)
        await socket.send(frame(2, test=True))
        socket.transport.abort()

    async with ListenServer([7], [send_tests_and_drop]).serving() as server, listening(server) as (local, _, _task):
        await wait_until(lambda: len(server.responses) == 2)
        assert [each["place"] for each in server.responses] == ["test-1", "p0007"]
        assert server.positions == [None, None]
        assert local.numbers[0] == 1


async def test_a_clock_jump_replaces_the_connection() -> None:
    wall = [time.time()]

    def now() -> float:
        return wall[0] + time.monotonic()

    waits = {"first_wait_seconds": 30, "longest_wait_seconds": 30}
    async with (
        ListenServer([1]).serving() as server,
        listening(server, wall_seconds=now, **waits) as (_, progress, _task),
    ):
        await wait_until(lambda: server.responses)
        wall[0] += 600  # the machine was asleep for 10 minutes
        await wait_until(lambda: "reconnected" in progress.lines)
        assert "asleep" in progress.reasons[0]
        assert server.positions == [None, "p0001"]
        # A clock that moves back or a little ahead has no effect.
        wall[0] -= 3600
        await asyncio.sleep(0.1)
        wall[0] += 1
        await asyncio.sleep(0.1)
        assert progress.lines.count("reconnecting") == 1


async def test_a_clock_jump_ends_a_long_reconnect_wait() -> None:
    wall = [0.0]

    async def end_connection(server: ListenServer, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')

    async with ListenServer([1], [end_connection]).serving() as server:
        waits = {"first_wait_seconds": 60, "longest_wait_seconds": 60}
        async with listening(server, wall_seconds=lambda: wall[0] + time.monotonic(), **waits) as (_, progress, _task):
            await wait_until(lambda: "reconnecting" in progress.lines)
            wall[0] += 600
            await wait_until(lambda: server.responses)


async def test_pings_detect_a_silent_connection() -> None:
    async def stop_reading(server: ListenServer, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        # Like a lost machine, this server keeps the connection but never responds.
        socket.transport.pause_reading()
        await socket.wait_closed()

    async with (
        ListenServer([1], [stop_reading]).serving() as server,
        listening(server, ping_seconds=0.3) as (_, progress, _task),
    ):
        await wait_until(lambda: server.responses)
        assert progress.reasons == ["the server stopped responding"]


async def test_a_slow_local_server_does_not_end_the_connection() -> None:
    async def ping(server: ListenServer, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(64):
            await socket.send(frame(number))
        # Both sides respond to pings for longer than the listener's timeout.
        for _ in range(30):
            await asyncio.wait_for(await socket.ping(), WITHIN_SECONDS)
            await asyncio.sleep(0.1)
        local.opened.set()
        await server.receive_response(socket)
        await socket.wait_closed()

    async with (
        ListenServer([], [ping]).serving() as server,
        listening(server, opened=False, ping_seconds=1) as (local, progress, _task),
    ):
        await wait_until(lambda: server.responses)
        assert "reconnecting" not in progress.lines
