"""An address with several hosts: whoever is silent, gone or no primary hides nobody."""

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
from tests.between import Between
from tests.e2e.harness import free_port
from tests.postgres import PostgresServer

from uplift_server.store import processes
from uplift_server.store.postgres import connection
from uplift_server.store.postgres.connection import Opener, store_error
from uplift_server.store.postgres.hosts import NEXT_HOST_AFTER_SECONDS, Hosts
from uplift_server.store.postgres.message_bus import new_message_bus

pytestmark = pytest.mark.timing


SOON_S = 1.0


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word, as a machine does whose disk has died."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def several(url: str, *ports: int | None, last: str = "") -> str:
    """An address whose first hosts have these ports, and then comes the real one."""
    parts = urlsplit(url)
    user, _, real = parts.netloc.rpartition("@")
    hosts = ",".join([*(f"127.0.0.1:{port}" for port in ports), real])
    return parts._replace(netloc=f"{user}@{hosts}" if user else hosts, query=last or parts.query).geturl()


async def opened(opener: Opener) -> float:
    """How long it took to open a connection that works."""
    began = time.monotonic()
    raw = await opener.raw()
    assert await raw.fetchval("SELECT 1") == 1
    raw.terminate()
    return time.monotonic() - began


async def test_beside_a_silent_first_host_the_second_is_asked_and_comes_first_from_then_on(
    network: Between, silent: int
) -> None:
    opener = Opener(several(network.url, silent))
    assert NEXT_HOST_AFTER_SECONDS - 0.1 < await opened(opener) < NEXT_HOST_AFTER_SECONDS + SOON_S
    assert await opened(opener) < NEXT_HOST_AFTER_SECONDS


async def test_a_first_host_that_is_slow_is_waited_for_all_the_same(network: Between) -> None:
    network.hold()
    asyncio.get_running_loop().call_later(NEXT_HOST_AFTER_SECONDS + 0.5, network.mend)
    assert (
        NEXT_HOST_AFTER_SECONDS + 0.5
        < await opened(Opener(several(network.url, free_port())))
        < NEXT_HOST_AFTER_SECONDS + 0.5 + SOON_S
    )


async def test_heartbeats_go_on_beside_silent_hosts(network: Between, silent: int) -> None:
    line = new_message_bus(several(network.url, silent, silent))
    assert await line.write(processes.list_all) == []
    await line.close()


async def test_hosts_that_refuse_cost_no_time(network: Between) -> None:
    assert await opened(Opener(several(network.url, free_port(), free_port()))) < SOON_S


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
async def test_a_host_that_takes_connections_and_closes_them_is_passed_over(network: Between, mode: str) -> None:
    """As a proxy does whose server is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_close_all, args=[listener], daemon=True).start()
        opening = opened(Opener(several(network.url, listener.getsockname()[1], last=f"sslmode={mode}")))
        if mode != "require":
            assert await opening < SOON_S
            return
        # The second is asked, and offers no encryption.
        with pytest.raises(ConnectionError, match="rejected SSL upgrade"):
            await opening


def _close_all(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            taken, _ = listener.accept()
            taken.recv(100)
            taken.close()


async def test_connections_that_come_too_late_are_closed(network: Between, postgres_server: PostgresServer) -> None:
    network.hold()
    url = several(network.url, urlsplit(network.url).port)
    slow = asyncio.ensure_future(opened(Opener(url)))
    await asyncio.sleep(NEXT_HOST_AFTER_SECONDS * 2)
    network.mend()
    await slow
    raw = await Opener(network.url).raw()
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with asyncio.timeout(SOON_S):
        while await raw.fetchval(others):
            await asyncio.sleep(0.02)
    raw.terminate()


@pytest.fixture(scope="module")
def standby() -> Iterator[Between]:
    """A network to a server that takes no writes."""
    server = PostgresServer()
    server.become_standby()
    between = Between(server.url("postgres"))
    yield between
    between.close()
    server.close()


@pytest.mark.parametrize("wanted", ["", "target_session_attrs=any", "target_session_attrs=read-write"])
async def test_a_standby_among_several_is_never_stayed_with(
    network: Between, standby: Between, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The primary is away for a moment, and then it is asked again."""
    monkeypatch.setattr(connection, "CONNECT_SECONDS_MAX", 1.0)
    opener = Opener(several(standby.url, urlsplit(network.url).port, last=wanted))
    assert await opened(opener) < SOON_S
    network.hold()
    with pytest.raises(TimeoutError):
        await opener.raw()
    network.mend()
    assert await opened(opener) < SOON_S


async def test_what_is_wrong_for_good_is_told_before_what_passes_and_a_standby_last(standby: Between) -> None:
    url = several(standby.url, free_port())
    with pytest.raises(ConnectionRefusedError):
        await Opener(url).raw()
    with pytest.raises(asyncpg.TargetServerAttributeNotMatched) as none:
        await Opener(several(standby.url, urlsplit(standby.url).port)).raw()
    assert "no host of it takes writes; promote a standby" in str(store_error(none.value))
    # The second offers no encryption, whenever it is asked; the first may well be there again.
    with pytest.raises(ConnectionError, match="rejected SSL upgrade"):
        await Opener(several(standby.url, free_port(), last="sslmode=require")).raw()


async def test_what_all_of_them_refuse_is_raised_in_time(
    network: Between, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS_MAX", 1.0)
    parts = urlsplit(several(network.url, silent, silent))
    nobody = parts._replace(netloc=parts.netloc.rpartition(",")[0]).geturl()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await Opener(nobody).raw()
    assert time.monotonic() - began < 1.0 + SOON_S


async def test_whoever_is_cancelled_while_late_hosts_are_given_up_is_cancelled() -> None:
    """A loop that is cancelled once, and takes that for the end of something else, would go on for ever."""
    entered, let_go, terminated = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def connect(place: Any) -> Any:
        if place["host"] == "two":
            return SimpleNamespace(terminate=terminated.set)
        try:
            await asyncio.sleep(60)
        finally:
            entered.set()
            await let_go.wait()

    asking = asyncio.ensure_future(Hosts("postgresql://one,two/db").first(connect))
    await entered.wait()
    asking.cancel()
    await asyncio.sleep(0)
    let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert terminated.is_set()


async def test_hosts_may_stand_in_the_parameters_a_directory_with_a_socket_among_them(
    network: Between, postgres_url: str
) -> None:
    port = urlsplit(network.url).port
    name = urlsplit(postgres_url).path
    socket_there = urlsplit(postgres_url).query.removeprefix("host=")
    for query in (
        f"host=127.0.0.1,127.0.0.1&port={free_port()},{port}",
        f"host=127.0.0.1:{free_port()},127.0.0.1:{port}",
        f"host=[::1]:{free_port()},{socket_there}",
    ):
        assert await opened(Opener(f"postgresql://postgres@{name}?{query}")) < SOON_S, query


async def test_ports_that_do_not_match_the_hosts_are_told() -> None:
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
    wanted = [
        each if each == {} else {"host": each[0], **({} if each[1] is None else {"port": each[1]}), **more}
        for each in hosts
    ]
    assert Hosts(url).known == wanted
