"""The listener between a scripted stream and a scripted local server, with waits as short as the clock allows."""

import asyncio
import base64
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from uplift_webhooks.cli.errors import ExitCode
from uplift_webhooks.cli.listening.frames import Answer, EventFrame
from uplift_webhooks.cli.listening.handover import Handing
from uplift_webhooks.cli.listening.listener import Expired, Listener, Timing
from uplift_webhooks.cli.listening.mischief import Mischief
from uplift_webhooks.cli.listening.stream import Address, Ended

Script = Callable[["Relay", ServerConnection], Coroutine[Any, Any, None]]
WITHIN_SECONDS = 15.0


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def frame(number: int, *, test: bool = False) -> bytes:
    """An event, as the server sends it."""
    header = {
        "kind": "event",
        "place": f"test-{number}" if test else f"p{number:04}",
        "event": f"e{number}",
        "type": "test.numbered",
        "created_at": "2026-01-01T00:00:00.000Z",
        "delivery": f"dlv_{number}",
        "test": test,
    }
    return json.dumps(header).encode() + b"\n" + b'{"n":%d}' % number


@dataclass
class Relay:
    """The server's side: sends what stands behind the place it is asked for, and notes what is answered."""

    events: list[int]
    scripts: list[Script] = field(default_factory=list)
    """What each connection does, in turn; afterwards, all behave."""
    asked: list[str | None] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    status: int | None = None
    """Refuses the handshake."""
    url: str = ""
    port: int = 0
    behind: int = -1
    """The number of the last event whose answer it knows."""

    async def answer(self, socket: ServerConnection) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(await socket.recv())
        assert said["kind"] == "answer"
        self.answers.append(said)
        return said

    async def behave(self, socket: ServerConnection, start: int) -> None:
        await socket.send(json.dumps({"kind": "ready", "session": "lsn_1"}))
        for number in self.events[start:]:
            await socket.send(frame(number))
        while True:
            await self.answer(socket)

    async def connected(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        assert socket.request.headers["authorization"] == "Bearer sk_1"
        [after] = parse_qs(urlsplit(socket.request.path).query).get("after", [None])
        self.asked.append(after)
        with suppress(ConnectionClosed):
            if self.scripts:
                await self.scripts.pop(0)(self, socket)
            else:
                await self.behave(socket, 0 if after is None else self.events.index(int(after[1:])) + 1)

    def refuse(self, socket: ServerConnection, _: Request) -> Response | None:
        if self.status is None:
            return None
        response = socket.respond(self.status, json.dumps({"detail": "No."}))
        del response.headers["content-type"]
        response.headers["content-type"] = "application/problem+json"
        return response

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator["Relay"]:
        async with serve(
            self.connected, "127.0.0.1", 0, process_request=self.refuse, ping_interval=None, close_timeout=0.1, ssl=tls
        ) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self.url = f"http://127.0.0.1:{self.port}"
            yield self


@dataclass
class Taken:
    """A local server that takes everything, as slowly as it is told to."""

    numbers: list[int] = field(default_factory=list)
    seconds: float = 0.0
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    """It takes nothing before."""
    closed: bool = False

    async def take(self, handing: Handing) -> Answer:
        await self.opened.wait()
        handing.times += 1
        await asyncio.sleep(self.seconds)
        self.numbers.append(json.loads(handing.event.body)["n"])
        return Answer(200, 1, body="ok")

    def close(self) -> None:
        self.closed = True


@dataclass
class Told:
    """What was told, in order."""

    lines: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def ready(self) -> None:
        self.lines.append("ready")

    def reconnecting(self, why: str, wait_seconds: float) -> None:
        self.lines.append("reconnecting")
        self.reasons.append(why)

    def reconnected(self) -> None:
        self.lines.append("reconnected")

    def delivery(self, event: EventFrame, answer: Answer, *, again: bool, comes_again: bool) -> None:
        assert not comes_again
        self.lines.append(f"{event.event} again" if again else event.event)


@asynccontextmanager
async def listening(
    relay: Relay, *, seconds: float = 0.0, opened: bool = True, **timing: Any
) -> AsyncIterator[tuple[Taken, Told, "asyncio.Task[None]"]]:
    """A listener that runs within the block."""
    quick = {"first_wait_seconds": 0.01, "longest_wait_seconds": 0.05, "clock_look_seconds": 0.02}
    taken, told = Taken(seconds=seconds), Told()
    if opened:
        taken.opened.set()
    address = Address(relay.url, "lsn_1", {"authorization": "Bearer sk_1"})
    listener = Listener(address, taken, told, timing=Timing(**{**quick, **timing}))
    task = asyncio.ensure_future(listener.run())
    try:
        yield taken, told, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert taken.closed


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


@asynccontextmanager
async def tunnelling(port: int, refusal: bytes = b"") -> AsyncIterator[tuple[int, list[str]]]:
    """A proxy to a port of this machine, whatever host is asked for: its own port, and what it was asked."""
    asked: list[str] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if refusal:
            writer.write(refusal)
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as proxy:
        yield proxy.sockets[0].getsockname()[1], asked


@pytest.mark.parametrize(
    ("scheme", "variable"), [("https", "HTTPS_PROXY"), ("http", "HTTP_PROXY"), ("http", "ALL_PROXY")]
)
async def test_it_listens_through_the_proxy_of_the_environment(
    scheme: str, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.example").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    async with (
        Relay([0, 1, 2]).serving(tls if scheme == "https" else None) as relay,
        tunnelling(relay.port) as (port, asked),
    ):
        monkeypatch.setenv(variable, f"http://user:p%40ss@127.0.0.1:{port}")
        relay.url = f"{scheme}://api.example"
        async with listening(relay) as (taken, told, _):
            await until(lambda: len(relay.answers) == 3)
            assert (taken.numbers, told.lines[0]) == ([0, 1, 2], "ready")
    [head] = asked
    assert head.startswith(f"CONNECT api.example:{443 if scheme == 'https' else 80} HTTP/1.1\r\n")
    assert f"proxy-authorization: basic {base64.b64encode(b'user:p@ss').decode()}".lower() in head.lower()
    assert "sk_1" not in head


async def test_this_machine_itself_is_not_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with Relay([0]).serving() as relay, listening(relay) as (taken, _, _task):
        await until(lambda: taken.numbers == [0])


async def test_a_proxy_that_refuses_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with tunnelling(9, b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n") as (port, asked):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        async with listening(Relay([0], url="http://api.example")) as (_, told, _task):
            await until(lambda: len(asked) > 1)
            assert told.reasons[0] == "proxy rejected connection: HTTP 403"


async def test_it_is_ready_only_when_the_server_has_said_so() -> None:
    async def silent(relay: Relay, socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with Relay([1], [silent]).serving() as relay, listening(relay) as (_, told, _task):
        await until(lambda: relay.asked)
        await asyncio.sleep(0.1)  # that nothing happens takes a while to see
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
        # All are answered, also those that were handed over while there was no connection.
        await until(lambda: {each["place"] for each in relay.answers} == {f"p{n:04}" for n in range(12)})
        assert told.lines.count("ready") == told.lines.count("reconnected") == 1
        assert told.reasons == ["the connection was cut"]


async def test_what_the_server_sends_no_more_is_not_waited_for() -> None:
    opened = asyncio.Event()

    async def die_at_once(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(3):
            await socket.send(frame(number))
        await (await socket.ping())
        socket.transport.abort()

    async def only_later_ones(relay: Relay, socket: ServerConnection) -> None:
        # The first three have expired meanwhile.
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
        wall[0] += 600  # a lid was closed for ten minutes
        await until(lambda: "reconnected" in told.lines)
        assert "asleep" in told.reasons[0]
        assert relay.asked == [None, "p0001"]
        # One that is set back, or a little ahead, is nothing.
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
        # As a machine that is gone: it takes what comes, and answers nothing.
        socket.transport.pause_reading()
        await socket.wait_closed()

    async with Relay([1], [deaf]).serving() as relay, listening(relay, ping_seconds=0.3) as (_, told, _task):
        await until(lambda: relay.answers)
        assert told.reasons == ["nothing is heard of the server"]


async def test_a_slow_local_server_does_not_make_the_connection_look_dead() -> None:
    async def ping(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(64):
            await socket.send(frame(number))
        # Pings of both sides are answered for longer than the listener would stand silence.
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


@pytest.mark.parametrize(
    ("code", "exit_code", "unknown"),
    [
        (4004, ExitCode.NOT_FOUND, True),
        (4009, ExitCode.FAILED, False),
        (4000, ExitCode.FAILED, False),
    ],
)
async def test_close_codes_after_which_it_ends(code: int, exit_code: ExitCode, unknown: bool) -> None:
    async def close(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        await socket.close(code, "why")

    async with Relay([], [close]).serving() as relay, listening(relay) as (_, _told, task):
        with pytest.raises(Ended) as ended:
            await asyncio.wait_for(task, WITHIN_SECONDS)
        assert (ended.value.code, ended.value.unknown) == (exit_code, unknown)
        assert len(relay.asked) == 1


@pytest.mark.parametrize(
    ("code", "reason"), [(1012, "the server restarts"), (1011, "the server closed the connection (1011, why)")]
)
async def test_close_codes_after_which_it_connects_again(code: int, reason: str) -> None:
    async def close(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        await socket.close(code, "why")

    async with Relay([1], [close]).serving() as relay, listening(relay) as (_, told, _task):
        await until(lambda: relay.answers)
        assert told.reasons == [reason]


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [(401, ExitCode.NOT_ALLOWED), (403, ExitCode.NOT_ALLOWED), (404, ExitCode.NOT_FOUND), (422, ExitCode.FAILED)],
)
async def test_handshakes_after_which_it_ends(status: int, exit_code: ExitCode) -> None:
    async with Relay([], status=status).serving() as relay, listening(relay) as (_, told, task):
        with pytest.raises(Ended) as ended:
            await asyncio.wait_for(task, WITHIN_SECONDS)
        assert (ended.value.code, ended.value.cause) == (exit_code, "No.")
        assert told.lines == []


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
        Relay([1]).serving() as other,
        serve(other.connected, "127.0.0.1", 0, process_request=redirect) as server,
    ):
        url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        async with listening(Relay([], url=url)) as (_, _told, task):
            with pytest.raises(Ended) as ended:
                await asyncio.wait_for(task, WITHIN_SECONDS)
    where = where.format(port=other.port)
    assert ended.value.cause == f"the server answered 302, a redirect{where}, which is not followed"
    assert (ended.value.code, "--api-url" in ended.value.remedy) == (ExitCode.USAGE, True)
    assert other.asked == []


async def test_a_session_that_is_gone_after_a_cut_has_expired() -> None:
    async def die(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(5):
            await socket.send(frame(number))
        await relay.answer(socket)
        relay.status = 404
        socket.transport.abort()

    async with Relay([], [die]).serving() as relay, listening(relay) as (taken, _, task):
        with pytest.raises(Expired) as expired:
            await asyncio.wait_for(task, WITHIN_SECONDS)
        # What was handed over without the server's knowledge is not handed over again, either.
        assert expired.value.behind == f"e{taken.numbers[-1]}"
        assert expired.value.begun == {}


async def test_what_an_expired_session_was_handing_over_is_marked_by_the_next() -> None:
    async def die(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(4):
            await socket.send(frame(number))
        await relay.answer(socket)
        # The next one is being handed over, and the third has waited.
        await until(lambda: taken.began == [0, 1])
        relay.status = 404
        socket.transport.abort()

    @dataclass
    class Slow(Taken):
        began: list[int] = field(default_factory=list)

        async def take(self, handing: Handing) -> Answer:
            self.began.append(json.loads(handing.event.body)["n"])
            self.seconds = 0.0 if self.began == [0] else 3600.0
            return await super().take(handing)

    taken = Slow()
    taken.opened.set()
    async with Relay([], [die]).serving() as relay:
        address = Address(relay.url, "lsn_1", {"authorization": "Bearer sk_1"})
        timing = Timing(first_wait_seconds=0.01)
        carried = {"e1": 4, "e3": 2, "e9": 1}
        listener = Listener(address, taken, Told(), timing=timing, begun=carried)
        with pytest.raises(Expired) as expired:
            await asyncio.wait_for(listener.run(), WITHIN_SECONDS)
    # Its own, what it was told of and had not come to, and what had not even come.
    assert (expired.value.behind, expired.value.begun) == ("e0", {"e1": 5, "e3": 2, "e9": 1})


async def test_what_was_handed_over_behind_a_gap_is_marked_by_the_next_session() -> None:
    async def die(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(3):
            await socket.send(frame(number))
        await relay.answer(socket)
        await until(lambda: taken.numbers == [0, 1, 2])
        relay.status = 404
        socket.transport.abort()

    class Never(Drawn):
        def uniform(self, a: float, b: float) -> float:
            return 3600.0

    class Unmoved(Told):
        def delivery(self, event: EventFrame, answer: Answer, *, again: bool, comes_again: bool) -> None:
            pass

    taken = Taken()
    taken.opened.set()
    async with Relay([], [die]).serving() as relay:
        address = Address(relay.url, "lsn_1", {"authorization": "Bearer sk_1"})
        mischief = Mischief(fail=0.5, chance=Never(0.9, 0.1, 0.9))
        listener = Listener(address, taken, Unmoved(), timing=Timing(first_wait_seconds=0.01), mischief=mischief)
        with pytest.raises(Expired) as expired:
            await asyncio.wait_for(listener.run(), WITHIN_SECONDS)
    assert (expired.value.behind, expired.value.begun) == ("e0", {"e1": 1, "e2": 1})


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_handshakes_that_are_tried_again(status: int) -> None:
    async with Relay([1], status=status).serving() as relay, listening(relay) as (_, told, _task):
        await until(lambda: len(told.reasons) > 2)
        relay.status = None
        await until(lambda: relay.answers)
        assert set(told.reasons) == {"No."}


@pytest.mark.parametrize(
    "nonsense",
    [b"no JSON\n{}", b'{"kind":"event"}\n{}', b'{"kind":"event"}', b"[]\n", frame(1).replace(b"e1", b"e\\n1"), b"\xff"],
)
async def test_what_is_no_event_is_no_reason_to_fall_over(nonsense: bytes) -> None:
    async def babble(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        await socket.send(nonsense)
        await socket.wait_closed()

    async with Relay([1], [babble]).serving() as relay, listening(relay) as (taken, told, _task):
        await until(lambda: relay.answers)
        assert taken.numbers == [1]
        assert told.reasons[0].startswith("the server sent")


async def test_later_servers_may_say_more() -> None:
    async def talk(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "welcome"}')
        await socket.send('{"kind": "ready", "more": 1}')
        await socket.send('{"kind": "news"}')
        await relay.behave(socket, 0)

    async with Relay([1], [talk]).serving() as relay, listening(relay) as (_, told, _task):
        await until(lambda: relay.answers)
        assert told.lines == ["ready", "e1"]


async def test_it_gives_up_where_that_is_wanted() -> None:
    async with Relay([], status=503).serving() as relay:
        began = time.monotonic()
        async with listening(relay, give_up_seconds=0.3) as (_, _told, task):
            with pytest.raises(Ended) as ended:
                await asyncio.wait_for(task, WITHIN_SECONDS)
        assert 0.3 <= time.monotonic() - began < 1
        assert ended.value.code is ExitCode.TRY_LATER


async def test_a_server_that_never_says_it_is_ready_is_not_waited_for_as_long_as_for_giving_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uplift_webhooks.cli.listening.listener.OPEN_SECONDS", 0.05)

    async def silent(relay: Relay, socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with Relay([1], [silent]).serving() as relay, listening(relay, give_up_seconds=3600) as (taken, told, _):
        await until(lambda: taken.numbers == [1])
        assert told.reasons == ["the server does not say that it is ready"]


async def test_waits_grow_and_begin_anew_after_a_good_connection() -> None:
    waits: list[float] = []

    class Noted(Told):
        def reconnecting(self, why: str, wait_seconds: float) -> None:
            waits.append(wait_seconds)

    async with Relay([], status=503).serving() as relay:
        address = Address(relay.url, "lsn_1", {"authorization": "Bearer sk_1"})
        timing = Timing(first_wait_seconds=0.01, longest_wait_seconds=0.08, settled_seconds=0.05)
        task = asyncio.ensure_future(Listener(address, Taken(), Noted(), timing=timing).run())
        await until(lambda: len(waits) > 6)
        assert waits[0] <= 0.01
        assert all(0.04 <= wait <= 0.08 for wait in waits[3:])

        async def settle(relay: Relay, socket: ServerConnection) -> None:
            await socket.send('{"kind": "ready"}')
            await asyncio.sleep(0.1)

        count = len(waits)
        relay.scripts = [settle]
        relay.status = None
        await until(lambda: len(relay.asked) == 2)
        assert min(waits[count:]) <= 0.01
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Drawn(random.Random):
    """Chance that comes out as it is told to, and lets nothing wait."""

    def __init__(self, *draws: float) -> None:
        super().__init__()
        self.draws = [*draws]

    def random(self) -> float:
        return self.draws.pop(0)

    def uniform(self, a: float, b: float) -> float:
        return 0.0


@pytest.mark.parametrize(("duplicate", "handed_over"), [(False, [0, 0, 1]), (True, [0, 0, 0, 1, 1])])
async def test_what_is_doubled_may_fail_too(duplicate: bool, handed_over: list[int]) -> None:
    told: list[tuple[str, bool, bool]] = []

    class Noted(Told):
        def delivery(self, event: EventFrame, answer: Answer, *, again: bool, comes_again: bool) -> None:
            told.append((event.event, again, comes_again))

    taken = Taken()
    taken.opened.set()
    async with Relay([0, 1]).serving() as relay:
        address = Address(relay.url, "lsn_1", {"authorization": "Bearer sk_1"})
        mischief = Mischief(duplicate=duplicate, fail=0.5, chance=Drawn(0.4, 0.6))
        task = asyncio.ensure_future(Listener(address, taken, Noted(), mischief=mischief).run())
        await until(lambda: len(relay.answers) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert sorted(taken.numbers) == handed_over
    assert mischief.chance.draws == []  # type: ignore[attr-defined]
    # Whatever comes again is told so, and the last time is the one that is answered.
    assert [again for name, again, _ in told if name == "e0"] == [False, *[True] * (handed_over.count(0) - 1)]
    assert [comes for name, _, comes in told if name == "e0"] == [*[True] * (handed_over.count(0) - 1), False]
