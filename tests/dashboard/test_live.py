"""Streams of live pages: events, permissions and limits."""

import asyncio
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from tests.dashboard.visitors import Guest, member, operator
from tests.e2e.harness import Server, wait_for

from uplift_server.core.limits import STREAMS_PER_ACCOUNT_CROWDED_MAX, STREAMS_PER_ACCOUNT_MAX
from uplift_server.dashboard.live import TURN_SECONDS_MAX, Live
from uplift_server.delivery.clock import SystemClock
from uplift_server.store.errors import Unavailable

PAGES: Final = 8


def connect(server: Server) -> socket.socket:
    """Open a connection."""
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)


def request_stream(connection: socket.socket, guest: Guest, path: str) -> None:
    """Request a stream."""
    cookie = f"uplift_session={guest.cookies['uplift_session']}"
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\ncookie: {cookie}\r\n\r\n".encode()
    )


def open_stream(server: Server, guest: Guest, path: str) -> socket.socket:
    """Open a stream and read its response headers."""
    connection = connect(server)
    request_stream(connection, guest, path)
    data = b""
    while b"retry:" not in data:
        received = connection.recv(4096)
        assert received, data
        data += received
    assert b"200 OK" in data
    assert b"content-type: text/event-stream" in data
    return connection


def reports_change(connection: socket.socket, seconds: float) -> bool:
    """Whether the stream reports a change within `seconds`."""
    connection.settimeout(seconds)
    data = b""
    try:
        while b"event: change" not in data:
            data += connection.recv(4096)
    except TimeoutError:
        return False
    return True


def time_of_change(connection: socket.socket) -> float:
    """Wait until the stream reports a change, and return the time (monotonic clock, in seconds)."""
    assert reports_change(connection, 20)
    return time.monotonic()


def stream_ends(connection: socket.socket, seconds: float) -> bool:
    """Whether the stream ends in time."""
    connection.settimeout(seconds)
    data = b""
    try:
        while not data.endswith(b"0\r\n\r\n"):
            received = connection.recv(4096)
            if not received:
                return True
            data += received
    except TimeoutError:
        return False
    return True


def test_a_page_receives_only_changes_of_its_account(server: Server) -> None:
    account, api = server.account()
    other, _ = server.account()
    with (
        closing(open_stream(server, member(server, account), f"/accounts/{account}/live")) as connection,
        closing(open_stream(server, member(server, other), f"/accounts/{other}/live")) as elsewhere,
    ):
        assert not reports_change(connection, 1.5)
        api.send(1)
        assert reports_change(connection, 10)
        assert not reports_change(elsewhere, 1.5)


@pytest.mark.timing
def test_open_pages_reload_one_after_another(server: Server) -> None:
    account, api = server.account()
    guest = member(server, account)
    with ExitStack() as stack:
        streams = [
            stack.enter_context(closing(open_stream(server, guest, f"/accounts/{account}/live"))) for _ in range(PAGES)
        ]
        assert not reports_change(streams[0], 1.2)
        api.send(1)
        with ThreadPoolExecutor(PAGES) as people:
            reported_at = sorted(people.map(time_of_change, streams))

    intervals = [later - earlier for earlier, later in pairwise(reported_at)]
    # The process can be busy during one reload, so check the median and the total instead of each interval.
    assert statistics.median(intervals) >= 0.8 * TURN_SECONDS_MAX
    assert reported_at[-1] - reported_at[0] >= 0.8 * TURN_SECONDS_MAX * (PAGES - 1)


async def test_an_unavailable_database_is_reported_so_that_pages_notice_it() -> None:
    async def version(_caller: object) -> str:
        if is_down:
            raise Unavailable("the database does not respond")
        return "1"

    async def is_still_let_in() -> bool:
        return True

    visit: Any = SimpleNamespace(
        caller=SimpleNamespace(account_seq=1),
        services=SimpleNamespace(
            accounts=SimpleNamespace(version=version), context=SimpleNamespace(clock=SystemClock())
        ),
        finish=lambda response: response,
        is_still_let_in=is_still_let_in,
    )
    is_down = False
    stream: Any = Live().stream(visit)
    lines = stream.body_iterator
    assert b"retry" in await anext(lines)
    await asyncio.sleep(0.1)
    for change in ("outage", "recovery"):
        is_down = change == "outage"
        async with asyncio.timeout(10):
            assert b"event: change" in await anext(lines)
    await lines.aclose()


def test_configuration_changes_are_reported(server: Server) -> None:
    account, api = server.account()
    with closing(open_stream(server, member(server, account), f"/accounts/{account}/live")) as connection:
        assert not reports_change(connection, 1.2)
        api.endpoint("http://127.0.0.1:9/x", description="new")
        assert reports_change(connection, 10)


def test_operator_pages_receive_regular_changes(server: Server) -> None:
    with closing(open_stream(server, operator(server), "/operator/live")) as connection:
        assert reports_change(connection, 15)


def test_streams_end_after_sign_out_or_removal(server: Server) -> None:
    account, api = server.account()
    path, settings = f"/accounts/{account}/live", f"/accounts/{account}/settings"
    owner, leaver, removed = (member(server, account, role) for role in ("owner", "manager", "member"))
    with (
        closing(open_stream(server, owner, path)) as open_connection,
        closing(open_stream(server, leaver, path)) as left_stream,
        closing(open_stream(server, removed, path)) as removed_stream,
    ):
        leaver.post("/sign-out", page="/you")
        people = server.api().ok("GET", f"/v1/accounts/{account}/members")["data"]
        [out] = [each["id"] for each in people if each["role"] == "member"]
        owner.post(f"{settings}/members/{out}/remove", page=settings)
        api.send(1)

        assert reports_change(open_connection, 20)
        assert stream_ends(left_stream, 20)
        assert stream_ends(removed_stream, 20)
        assert not stream_ends(open_connection, 0.5)


def test_stream_limits_leave_streams_for_other_accounts(server: Server) -> None:
    greedy = [server.account()[0] for _ in range(8)]
    other, _ = server.account()
    guests = [member(server, account) for account in greedy]
    with ExitStack() as stack:
        opened_by = [
            len(open_streams(stack, server, guest, f"/accounts/{account}/live", 2 * STREAMS_PER_ACCOUNT_MAX))
            for guest, account in zip(guests, greedy, strict=True)
        ]
        # The first six accounts use three quarters of the streams, and the others share the last quarter.
        assert opened_by == [STREAMS_PER_ACCOUNT_MAX] * 6 + [STREAMS_PER_ACCOUNT_CROWDED_MAX] * 2
        assert guests[0].get(f"/accounts/{greedy[0]}/live").status == 429
        stack.enter_context(closing(open_stream(server, member(server, other), f"/accounts/{other}/live")))
        stack.enter_context(closing(open_stream(server, operator(server), "/operator/live")))
    wait_for(lambda: can_open_all(server, guests[0], f"/accounts/{greedy[0]}/live"), "all streams are released")


def open_streams(stack: ExitStack, server: Server, guest: Guest, path: str, count: int) -> list[socket.socket]:
    """Request `count` streams at once, and return the accepted connections."""
    connections = [stack.enter_context(closing(connect(server))) for _ in range(count)]
    for connection in connections:
        request_stream(connection, guest, path)
    accepted = []
    for connection in connections:
        if connection.recv(65_536).startswith(b"HTTP/1.1 200"):
            accepted.append(connection)
        else:
            connection.close()
    return accepted


def can_open_all(server: Server, guest: Guest, path: str) -> bool:
    """Whether an account can open all of its streams."""
    with ExitStack() as stack:
        return len(open_streams(stack, server, guest, path, STREAMS_PER_ACCOUNT_MAX)) == STREAMS_PER_ACCOUNT_MAX
