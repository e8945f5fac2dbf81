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

from .relaying import WITHIN_SECONDS, Relay, Taken, Told, frame, listening, until


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
    ("code", "reason"), [(1012, "the server is restarting"), (1011, "the server closed the connection (1011, why)")]
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
    assert ended.value.cause == f"the server responded with a redirect (302){where}"
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
        # An event that was forwarded during the disconnection is not forwarded again.
        assert expired.value.behind == f"e{taken.numbers[-1]}"
        assert expired.value.begun == {}


async def test_what_an_expired_session_was_handing_over_is_marked_by_the_next() -> None:
    async def die(relay: Relay, socket: ServerConnection) -> None:
        await socket.send('{"kind": "ready"}')
        for number in range(4):
            await socket.send(frame(number))
        await relay.answer(socket)
        # The next event is in flight, and the third is waiting.
        await until(lambda: taken.began == [0, 1])
        relay.status = 404
        socket.transport.abort()

    @dataclass
    class Slow(Taken):
        began: list[int] = field(default_factory=list)

        async def take(self, handing: Handing) -> LocalResponse:
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
    # The event in flight, an event from the earlier session, and an event that did not arrive.
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
        def delivery(self, event: EventFrame, answer: LocalResponse, *, again: bool, comes_again: bool) -> None:
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


@pytest.mark.timing
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
        assert told.reasons == ["the server did not become ready in time"]


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
    """Fixed random draws, without delays."""

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
        def delivery(self, event: EventFrame, answer: LocalResponse, *, again: bool, comes_again: bool) -> None:
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
    # Each repeat is reported, and the last one is the response.
    assert [again for name, again, _ in told if name == "e0"] == [False, *[True] * (handed_over.count(0) - 1)]
    assert [comes for name, _, comes in told if name == "e0"] == [*[True] * (handed_over.count(0) - 1), False]
