"""Database URLs with several hosts."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.e2e.harness import free_port
from tests.postgres import PostgresServer
from tests.unreliable_network import UnreliableNetwork

from uplift_server.store import processes
from uplift_server.store.postgres import connection
from uplift_server.store.postgres.connection import Opener, store_error
from uplift_server.store.postgres.hosts import NEXT_HOST_AFTER_SECONDS, Hosts
from uplift_server.store.postgres.message_bus import new_message_bus

pytestmark = pytest.mark.timing


SOON_S = 1.0


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts connections and never responds, like a machine with a failed disk."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def url_with_hosts(url: str, *ports: int | None, last: str = "") -> str:
    """Return a URL whose first hosts have these ports. The real host comes last."""
    parts = urlsplit(url)
    user, _, real = parts.netloc.rpartition("@")
    hosts = ",".join([*(f"127.0.0.1:{port}" for port in ports), real])
    return parts._replace(netloc=f"{user}@{hosts}" if user else hosts, query=last or parts.query).geturl()


async def seconds_to_open(opener: Opener) -> float:
    """Return the time to open a working connection."""
    began = time.monotonic()
    raw = await opener.raw()
    assert await raw.fetchval("SELECT 1") == 1
    raw.terminate()
    return time.monotonic() - began


async def test_the_second_host_replaces_a_silent_first_one(network: UnreliableNetwork, silent: int) -> None:
    opener = Opener(url_with_hosts(network.url, silent))
    assert NEXT_HOST_AFTER_SECONDS - 0.1 < await seconds_to_open(opener) < NEXT_HOST_AFTER_SECONDS + SOON_S
    assert await seconds_to_open(opener) < NEXT_HOST_AFTER_SECONDS


async def test_a_slow_first_host_is_used_if_the_second_fails(network: UnreliableNetwork) -> None:
    network.hold()
    asyncio.get_running_loop().call_later(NEXT_HOST_AFTER_SECONDS + 0.5, network.restore)
    assert (
        NEXT_HOST_AFTER_SECONDS + 0.5
        < await seconds_to_open(Opener(url_with_hosts(network.url, free_port())))
        < NEXT_HOST_AFTER_SECONDS + 0.5 + SOON_S
    )


async def test_heartbeats_continue_with_silent_hosts(network: UnreliableNetwork, silent: int) -> None:
    bus = new_message_bus(url_with_hosts(network.url, silent, silent))
    assert await bus.write(processes.list_all) == []
    await bus.close()


async def test_hosts_that_refuse_connections_are_skipped_immediately(network: UnreliableNetwork) -> None:
    assert await seconds_to_open(Opener(url_with_hosts(network.url, free_port(), free_port()))) < SOON_S


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
async def test_a_host_that_closes_connections_is_skipped(network: UnreliableNetwork, mode: str) -> None:
    """A proxy without a server behind it closes connections in this way."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_close_all, args=[listener], daemon=True).start()
        opening = seconds_to_open(
            Opener(url_with_hosts(network.url, listener.getsockname()[1], last=f"sslmode={mode}"))
        )
        if mode != "require":
            assert await opening < SOON_S
            return
        # The second host does not offer TLS.
        with pytest.raises(ConnectionError, match="rejected SSL upgrade"):
            await opening


def _close_all(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            accepted, _ = listener.accept()
            accepted.recv(100)
            accepted.close()


async def test_late_connections_are_closed(network: UnreliableNetwork, postgres_server: PostgresServer) -> None:
    network.hold()
    url = url_with_hosts(network.url, urlsplit(network.url).port)
    slow = asyncio.ensure_future(seconds_to_open(Opener(url)))
    await asyncio.sleep(NEXT_HOST_AFTER_SECONDS * 2)
    network.restore()
    await slow
    raw = await Opener(network.url).raw()
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with asyncio.timeout(SOON_S):
        while await raw.fetchval(others):
            await asyncio.sleep(0.02)
    raw.terminate()


@pytest.fixture(scope="module")
def standby() -> Iterator[UnreliableNetwork]:
    """A network to a standby."""
    server = PostgresServer()
    server.become_standby()
    between = UnreliableNetwork(server.url("postgres"))
    yield between
    between.close()
    server.close()


@pytest.mark.parametrize("parameters", ["", "target_session_attrs=any", "target_session_attrs=read-write"])
async def test_a_standby_is_never_used(
    network: UnreliableNetwork, standby: UnreliableNetwork, parameters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a short outage of the primary, connections go to it again."""
    monkeypatch.setattr(connection, "CONNECT_SECONDS_MAX", 1.0)
    opener = Opener(url_with_hosts(standby.url, urlsplit(network.url).port, last=parameters))
    assert await seconds_to_open(opener) < SOON_S
    network.hold()
    with pytest.raises(TimeoutError):
        await opener.raw()
    network.restore()
    assert await seconds_to_open(opener) < SOON_S


async def test_wrong_configuration_is_reported_first_and_standbys_last(standby: UnreliableNetwork) -> None:
    url = url_with_hosts(standby.url, free_port())
    with pytest.raises(ConnectionRefusedError):
        await Opener(url).raw()
    with pytest.raises(asyncpg.TargetServerAttributeNotMatched) as none:
        await Opener(url_with_hosts(standby.url, urlsplit(standby.url).port)).raw()
    assert "none of its hosts accepts writes; promote a standby" in str(store_error(none.value))
    # The second host does not offer TLS, which is permanent. The error of the first host is temporary.
    with pytest.raises(ConnectionError, match="rejected SSL upgrade"):
        await Opener(url_with_hosts(standby.url, free_port(), last="sslmode=require")).raw()


async def test_an_error_of_all_hosts_is_raised_in_time(
    network: UnreliableNetwork, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS_MAX", 1.0)
    parts = urlsplit(url_with_hosts(network.url, silent, silent))
    silent_url = parts._replace(netloc=parts.netloc.rpartition(",")[0]).geturl()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await Opener(silent_url).raw()
    assert time.monotonic() - began < 1.0 + SOON_S


async def test_a_cancellation_while_late_attempts_are_cancelled_is_kept() -> None:
    """Otherwise, a loop that misses its only cancellation would never end."""
    entered, may_end, terminated = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def connect(host: Any) -> Any:
        if host["host"] == "two":
            return SimpleNamespace(terminate=terminated.set)
        try:
            await asyncio.sleep(60)
        finally:
            entered.set()
            await may_end.wait()

    connecting = asyncio.ensure_future(Hosts("postgresql://one,two/db").connect(connect))
    await entered.wait()
    connecting.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert terminated.is_set()


async def test_hosts_can_be_parameters_or_socket_directories(network: UnreliableNetwork, postgres_url: str) -> None:
    port = urlsplit(network.url).port
    name = urlsplit(postgres_url).path
    socket_directory = urlsplit(postgres_url).query.removeprefix("host=")
    for query in (
        f"host=127.0.0.1,127.0.0.1&port={free_port()},{port}",
        f"host=127.0.0.1:{free_port()},127.0.0.1:{port}",
        f"host=[::1]:{free_port()},{socket_directory}",
    ):
        assert await seconds_to_open(Opener(f"postgresql://postgres@{name}?{query}")) < SOON_S, query


async def test_ports_that_do_not_match_the_hosts_are_reported() -> None:
    with pytest.raises(asyncpg.ClientConfigurationError, match="3 port numbers to 2 hosts"):
        await Opener("postgresql://postgres@/uplift?host=a,b&port=1,2,3").raw()


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://one/db", [{}]),
        ("postgresql://u:p@one:1,two:2/db", [("one", 1), ("two", 2)]),
        ("postgresql://one,[2001:db8::1]:2/db", [("one", None), ("2001:db8::1", 2)]),
        ("postgresql://u@%2Fvar%2Frun:5433,two/db", [("/var/run", 5433), ("two", None)]),
        ("postgresql://u@/db?host=/var/run,two&port=1,2", [("/var/run", 1), ("two", 2)]),
        ("postgresql://u@/db?host=one,two:3&port=1", [("one", 1), ("two", 3)]),
        ("postgresql://u@/db?host=one,two&port=1,2,3", [{}]),
    ],
)
def test_hosts_are_read_as_the_driver_reads_them(url: str, hosts: list[Any]) -> None:
    more = {"target_session_attrs": "primary"}
    parameters = [
        each if each == {} else {"host": each[0], **({} if each[1] is None else {"port": each[1]}), **more}
        for each in hosts
    ]
    assert Hosts(url).known == parameters
