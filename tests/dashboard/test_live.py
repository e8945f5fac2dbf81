"""Streams that tell pages of changes: what they tell, whom, and how many there may be."""

import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import pairwise
from typing import Final
from urllib.parse import urlsplit

from tests.dashboard.visitors import Guest, member, operator
from tests.e2e.harness import Server

from uplift_server.dashboard.live import STREAMS_MAX, STREAMS_PER_ACCOUNT_MAX, TURN_SECONDS_MAX

PAGES: Final = 8


def opened(server: Server, guest: Guest, path: str) -> socket.socket:
    """A stream, its head read."""
    parts = urlsplit(server.url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)
    cookie = f"uplift_session={guest.cookies['uplift_session']}"
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\ncookie: {cookie}\r\n\r\n".encode()
    )
    told = b""
    while b"retry:" not in told:
        received = connection.recv(4096)
        assert received, told
        told += received
    assert b"200 OK" in told
    assert b"content-type: text/event-stream" in told
    return connection


def changes(connection: socket.socket, seconds: float) -> bool:
    """Whether a change is told within a time."""
    connection.settimeout(seconds)
    told = b""
    try:
        while b"event: change" not in told:
            told += connection.recv(4096)
    except TimeoutError:
        return False
    return True


def change_at(connection: socket.socket) -> float:
    """When a change is told."""
    assert changes(connection, 20)
    return time.monotonic()


def ends(connection: socket.socket, seconds: float) -> bool:
    """Whether the stream ends within a time."""
    connection.settimeout(seconds)
    told = b""
    try:
        while not told.endswith(b"0\r\n\r\n"):
            received = connection.recv(4096)
            if not received:
                return True
            told += received
    except TimeoutError:
        return False
    return True


def test_a_page_hears_of_what_happens_in_its_account_and_of_nothing_else(server: Server) -> None:
    account, api = server.account()
    other, _ = server.account()
    with (
        closing(opened(server, member(server, account), f"/accounts/{account}/live")) as connection,
        closing(opened(server, member(server, other), f"/accounts/{other}/live")) as elsewhere,
    ):
        assert not changes(connection, 1.5)
        api.send(1)
        assert changes(connection, 10)
        assert not changes(elsewhere, 1.5)


def test_open_pages_load_one_after_the_other(server: Server) -> None:
    account, api = server.account()
    guest = member(server, account)
    with ExitStack() as stack:
        streams = [
            stack.enter_context(closing(opened(server, guest, f"/accounts/{account}/live"))) for _ in range(PAGES)
        ]
        assert not changes(streams[0], 1.2)
        api.send(1)
        with ThreadPoolExecutor(PAGES) as people:
            told_at = sorted(people.map(change_at, streams))

    apart = [later - earlier for earlier, later in pairwise(told_at)]
    # The process may have been busy with something else for one of them.
    assert statistics.median(apart) >= 0.8 * TURN_SECONDS_MAX
    assert told_at[-1] - told_at[0] >= 0.8 * TURN_SECONDS_MAX * (PAGES - 1)


def test_what_people_do_is_a_change_too(server: Server) -> None:
    account, api = server.account()
    with closing(opened(server, member(server, account), f"/accounts/{account}/live")) as connection:
        assert not changes(connection, 1.2)
        api.endpoint("http://127.0.0.1:9/x", description="new")
        assert changes(connection, 10)


def test_operators_look_again_every_few_seconds(server: Server) -> None:
    with closing(opened(server, operator(server), "/operator/live")) as connection:
        assert changes(connection, 15)


def test_nothing_more_is_told_to_whoever_signed_out_or_is_no_member_any_more(server: Server) -> None:
    account, api = server.account()
    path, settings = f"/accounts/{account}/live", f"/accounts/{account}/settings"
    owner, leaver, removed = (member(server, account, role) for role in ("owner", "manager", "member"))
    with (
        closing(opened(server, owner, path)) as stays,
        closing(opened(server, leaver, path)) as left,
        closing(opened(server, removed, path)) as put_out,
    ):
        leaver.post("/sign-out", page="/you")
        people = server.api().ok("GET", f"/v1/accounts/{account}/members")["data"]
        [out] = [each["id"] for each in people if each["role"] == "member"]
        owner.post(f"{settings}/members/{out}/remove", page=settings)
        api.send(1)

        assert changes(stays, 20)
        assert ends(left, 20)
        assert ends(put_out, 20)
        assert not ends(stays, 0.5)


def test_there_is_an_end_to_how_many(server: Server) -> None:
    accounts = [server.account()[0] for _ in range(STREAMS_MAX // STREAMS_PER_ACCOUNT_MAX + 1)]
    guests = [member(server, account) for account in accounts]
    paths = [f"/accounts/{account}/live" for account in accounts]
    streams = []
    try:
        for guest, path in list(zip(guests, paths, strict=True))[:-1]:
            for _ in range(STREAMS_PER_ACCOUNT_MAX):
                streams.append(opened(server, guest, path))
            assert guest.get(path).status == 503
        assert guests[-1].get(paths[-1]).status == 503
    finally:
        for stream in streams:
            stream.close()
