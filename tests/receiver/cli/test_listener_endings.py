"""Close codes and responses after which the listener ends or reconnects."""

import asyncio
import json
import random
import time
from dataclasses import dataclass, field

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from uplift_webhooks.cli.kit.errors import ExitCode
from uplift_webhooks.cli.listening.frames import EventFrame, LocalResponse
from uplift_webhooks.cli.listening.handover import Handing
from uplift_webhooks.cli.listening.listener import Expired, Listener, Timing
from uplift_webhooks.cli.listening.mischief import Mischief
from uplift_webhooks.cli.listening.stream import Address, Ended

from .listen_harness import (
    WITHIN_SECONDS,
    FakeLocalServer,
    ListenServer,
    ProgressRecorder,
    frame,
    listening,
    wait_until,
)


@pytest.mark.parametrize(
    ("code", "exit_code", "unknown"),
    [
        (4004, ExitCode.NOT_FOUND, True),
        (4009, ExitCode.FAILED, False),
        (4000, ExitCode.FAILED, False),
    ],
)
async def test_close_codes_that_end_the_listener(code: int, exit_code: ExitCode, unknown: bool) -> None:
    async def close(server: ListenServer, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        await socket.close(code, "why")

    async with ListenServer([], [close]).serving() as server, listening(server) as (_, _progress, task):
        with pytest.raises(Ended) as ended:
            await asyncio.wait_for(task, WITHIN_SECONDS)
        assert (ended.value.code, ended.value.unknown) == (exit_code, unknown)
        assert len(server.positions) == 1


@pytest.mark.parametrize(
    ("code", "reason"), [(1012, "the server is restarting"), (1011, "the server closed the connection (1011, why)")]
)
async def test_close_codes_that_cause_a_reconnect(code: int, reason: str) -> None:
    async def close(server: ListenServer, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        await socket.close(code, "why")

    async with ListenServer([1], [close]).serving() as server, listening(server) as (_, progress, _task):
        await wait_until(lambda: server.responses)
        assert progress.reasons == [reason]


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [(401, ExitCode.NOT_ALLOWED), (403, ExitCode.NOT_ALLOWED), (404, ExitCode.NOT_FOUND), (422, ExitCode.FAILED)],
)
async def test_handshake_statuses_that_end_the_listener(status: int, exit_code: ExitCode) -> None:
    async with ListenServer([], status=status).serving() as server, listening(server) as (_, progress, task):
        with pytest.raises(Ended) as ended:
            await asyncio.wait_for(task, WITHIN_SECONDS)
        assert (ended.value.code, ended.value.cause) == (exit_code, "No.")
        assert progress.lines == []


@pytest.mark.parametrize(
    ("location", "where"),
    [
        ("ws://u:p@127.0.0.1:{port}/stolen?x=secret", " to http://127.0.0.1:{port}"),
        ("https://api.example/x", " to https://api.example"),
        ("/elsewhere", ""),
        ("ws://[::1", ""),
        ("ws://ex\u00e4mple/", ""),
    ],
)
async def test_redirects_are_not_followed(location: str, where: str) -> None:
    def redirect(socket: ServerConnection, _: Request) -> Response:
        response = socket.respond(302, "")
        response.headers["location"] = location.format(port=other.port)
        return response

    async with (
        ListenServer([1]).serving() as other,
        serve(other.handle, "127.0.0.1", 0, process_request=redirect) as server,
    ):
        url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        async with listening(ListenServer([], url=url)) as (_, _progress, task):
            with pytest.raises(Ended) as ended:
                await asyncio.wait_for(task, WITHIN_SECONDS)
    where = where.format(port=other.port)
    assert ended.value.cause == f"the server responded with a redirect (302){where}"
    assert (ended.value.code, "--api-url" in ended.value.remedy) == (ExitCode.USAGE, True)
    assert other.positions == []


async def test_a_session_not_found_on_reconnect_has_expired() -> None:
    async def drop(server: ListenServer, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(5):
            await socket.send(frame(number))
        await server.receive_response(socket)
        server.status = 404
        socket.transport.abort()

    async with ListenServer([], [drop]).serving() as server, listening(server) as (local, _, task):
        with pytest.raises(Expired) as expired:
            await asyncio.wait_for(task, WITHIN_SECONDS)
        # An event that was forwarded while the listener was disconnected is not forwarded again.
        assert expired.value.behind == f"e{local.numbers[-1]}"
        assert expired.value.begun == {}


async def test_an_expired_session_reports_events_in_flight() -> None:
    async def drop(server: ListenServer, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(4):
            await socket.send(frame(number))
        await server.receive_response(socket)
        # The next event is in flight, and the third is waiting.
        await wait_until(lambda: local.began == [0, 1])
        server.status = 404
        socket.transport.abort()

    @dataclass
    class Slow(FakeLocalServer):
        began: list[int] = field(default_factory=list)

        async def take(self, handing: Handing) -> LocalResponse:
            self.began.append(json.loads(handing.event.body)["n"])
            self.seconds = 0.0 if self.began == [0] else 3600.0
            return await super().take(handing)

    local = Slow()
    local.opened.set()
    async with ListenServer([], [drop]).serving() as server:
        address = Address(server.url, "lsn_1", {"authorization": "Bearer sk_1"})
        timing = Timing(first_wait_seconds=0.01)
        previous = {"e1": 4, "e3": 2, "e9": 1}
        listener = Listener(address, local, ProgressRecorder(), timing=timing, begun=previous)
        with pytest.raises(Expired) as expired:
            await asyncio.wait_for(listener.run(), WITHIN_SECONDS)
    # The event in flight, an event from the earlier session, and an event that did not arrive.
    assert (expired.value.behind, expired.value.begun) == ("e0", {"e1": 5, "e3": 2, "e9": 1})


async def test_an_expired_session_reports_events_forwarded_after_a_gap() -> None:
    async def drop(server: ListenServer, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(3):
            await socket.send(frame(number))
        await server.receive_response(socket)
        await wait_until(lambda: local.numbers == [0, 1, 2])
        server.status = 404
        socket.transport.abort()

    class LongRetryDelay(FixedRandom):
        def uniform(self, a: float, b: float) -> float:
            return 3600.0

    class NoProgress(ProgressRecorder):
        def delivery(self, event: EventFrame, answer: LocalResponse, *, again: bool, comes_again: bool) -> None:
            pass

    local = FakeLocalServer()
    local.opened.set()
    async with ListenServer([], [drop]).serving() as server:
        address = Address(server.url, "lsn_1", {"authorization": "Bearer sk_1"})
        mischief = Mischief(fail=0.5, chance=LongRetryDelay(0.9, 0.1, 0.9))
        listener = Listener(address, local, NoProgress(), timing=Timing(first_wait_seconds=0.01), mischief=mischief)
        with pytest.raises(Expired) as expired:
            await asyncio.wait_for(listener.run(), WITHIN_SECONDS)
    assert (expired.value.behind, expired.value.begun) == ("e0", {"e1": 1, "e2": 1})


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_handshake_statuses_that_are_retried(status: int) -> None:
    async with ListenServer([1], status=status).serving() as server, listening(server) as (_, progress, _task):
        await wait_until(lambda: len(progress.reasons) > 2)
        server.status = None
        await wait_until(lambda: server.responses)
        assert set(progress.reasons) == {"No."}


@pytest.mark.parametrize(
    "nonsense",
    [b"no JSON\n{}", b'{"kind":"event"}\n{}', b'{"kind":"event"}', b"[]\n", frame(1).replace(b"e1", b"e\\n1"), b"\xff"],
)
async def test_an_invalid_frame_causes_a_reconnect(nonsense: bytes) -> None:
    async def send_nonsense(server: ListenServer, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        await socket.send(nonsense)
        await socket.wait_closed()

    async with ListenServer([1], [send_nonsense]).serving() as server, listening(server) as (local, progress, _task):
        await wait_until(lambda: server.responses)
        assert local.numbers == [1]
        assert progress.reasons[0].startswith("the server sent")


async def test_unknown_messages_and_fields_are_ignored() -> None:
    async def send_unknown_messages(server: ListenServer, socket: ServerConnection) -> None:
        await socket.send('{"kind": "welcome"}')
        await socket.send('{"kind": "ready", "more": 1}')
        await socket.send('{"kind": "news"}')
        await server.send_events(socket, 0)

    async with (
        ListenServer([1], [send_unknown_messages]).serving() as server,
        listening(server) as (_, progress, _task),
    ):
        await wait_until(lambda: server.responses)
        assert progress.lines == ["ready", "e1"]


@pytest.mark.timing
async def test_the_listener_gives_up_after_the_configured_time() -> None:
    async with ListenServer([], status=503).serving() as server:
        began = time.monotonic()
        async with listening(server, give_up_seconds=0.3) as (_, _progress, task):
            with pytest.raises(Ended) as ended:
                await asyncio.wait_for(task, WITHIN_SECONDS)
        assert 0.3 <= time.monotonic() - began < 1
        assert ended.value.code is ExitCode.TRY_LATER


async def test_a_missing_ready_message_causes_a_reconnect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uplift_webhooks.cli.listening.listener.OPEN_SECONDS", 0.05)

    async def silent(server: ListenServer, socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with (
        ListenServer([1], [silent]).serving() as server,
        listening(server, give_up_seconds=3600) as (local, progress, _),
    ):
        await wait_until(lambda: local.numbers == [1])
        assert progress.reasons == ["the server did not become ready in time"]


async def test_reconnect_waits_grow_and_reset_after_a_connection() -> None:
    waits: list[float] = []

    class WaitRecorder(ProgressRecorder):
        def reconnecting(self, why: str, wait_seconds: float) -> None:
            waits.append(wait_seconds)

    async with ListenServer([], status=503).serving() as server:
        address = Address(server.url, "lsn_1", {"authorization": "Bearer sk_1"})
        timing = Timing(first_wait_seconds=0.01, longest_wait_seconds=0.08, settled_seconds=0.05)
        task = asyncio.ensure_future(Listener(address, FakeLocalServer(), WaitRecorder(), timing=timing).run())
        await wait_until(lambda: len(waits) > 6)
        assert waits[0] <= 0.01
        assert all(0.04 <= wait <= 0.08 for wait in waits[3:])

        async def stay_connected(server: ListenServer, socket: ServerConnection) -> None:
            await socket.send('{"kind": "ready"}')
            await asyncio.sleep(0.1)

        count = len(waits)
        server.scripts = [stay_connected]
        server.status = None
        await wait_until(lambda: len(server.positions) == 2)
        assert min(waits[count:]) <= 0.01
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class FixedRandom(random.Random):
    """Returns fixed draws instead of random ones, and delays of 0."""

    def __init__(self, *draws: float) -> None:
        super().__init__()
        self.draws = [*draws]

    def random(self) -> float:
        return self.draws.pop(0)

    def uniform(self, a: float, b: float) -> float:
        return 0.0


@pytest.mark.parametrize(("duplicate", "forwarded"), [(False, [0, 0, 1]), (True, [0, 0, 0, 1, 1])])
async def test_duplicates_can_also_fail(duplicate: bool, forwarded: list[int]) -> None:
    reported: list[tuple[str, bool, bool]] = []

    class DeliveryRecorder(ProgressRecorder):
        def delivery(self, event: EventFrame, answer: LocalResponse, *, again: bool, comes_again: bool) -> None:
            reported.append((event.event, again, comes_again))

    local = FakeLocalServer()
    local.opened.set()
    async with ListenServer([0, 1]).serving() as server:
        address = Address(server.url, "lsn_1", {"authorization": "Bearer sk_1"})
        mischief = Mischief(duplicate=duplicate, fail=0.5, chance=FixedRandom(0.4, 0.6))
        task = asyncio.ensure_future(Listener(address, local, DeliveryRecorder(), mischief=mischief).run())
        await wait_until(lambda: len(server.responses) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert sorted(local.numbers) == forwarded
    assert mischief.chance.draws == []  # type: ignore[attr-defined]
    # Each repeat is reported, and only the last report says that no repeat follows.
    assert [again for name, again, _ in reported if name == "e0"] == [False, *[True] * (forwarded.count(0) - 1)]
    assert [comes for name, _, comes in reported if name == "e0"] == [*[True] * (forwarded.count(0) - 1), False]
