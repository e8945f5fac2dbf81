"""Outages of the network to PostgreSQL: operations time out, and the engine recovers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import sqlalchemy as sa
from tests.unreliable_network import UnreliableNetwork

from uplift_server.store import processes
from uplift_server.store.errors import Unavailable
from uplift_server.store.postgres import PostgresDatabase
from uplift_server.store.postgres.message_bus import new_message_bus

pytestmark = pytest.mark.timing


TIMEOUT_S = 0.7
SOON_S = 0.7
Cut = Callable[[UnreliableNetwork], None]


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "connection.OPERATION_SECONDS_MAX",
        "connection.CONNECT_SECONDS_MAX",
        "message_bus.OPERATION_SECONDS_MAX",
    ):
        monkeypatch.setattr(f"uplift_server.store.postgres.{name}", TIMEOUT_S)


@pytest.fixture
async def database(network: UnreliableNetwork) -> AsyncIterator[PostgresDatabase]:
    """An engine with several idle connections."""
    database = PostgresDatabase(network.url)
    slow = [database.read(lambda c: c.exec_driver_sql("SELECT pg_sleep(0.1)")) for _ in range(3)]
    await asyncio.gather(*slow, *(database.reclaim(now=1) for _ in range(4)), database.write(_write_mark))
    yield database
    await database.close()


def _write_mark(connection: sa.Connection) -> None:
    connection.exec_driver_sql("INSERT INTO marks (name, value) VALUES ('m', 1) ON CONFLICT DO NOTHING")


async def seconds_until_unavailable(operation: Coroutine[Any, Any, Any]) -> float:
    """Return the time until an operation timed out."""
    began = time.monotonic()
    with pytest.raises(Unavailable, match="the database does not respond"):
        await operation
    return time.monotonic() - began


async def _reclaim(database: PostgresDatabase) -> int:
    return await database.reclaim(now=1)


OPERATIONS: list[Callable[[PostgresDatabase], Coroutine[Any, Any, Any]]] = [
    lambda database: database.read(_write_mark),
    lambda database: database.write(_write_mark),
    _reclaim,
]


@pytest.mark.parametrize("cut", [UnreliableNetwork.hold, UnreliableNetwork.lose])
async def test_operations_time_out_and_later_ones_succeed(
    network: UnreliableNetwork, database: PostgresDatabase, cut: Cut
) -> None:
    cut(network)
    took = await asyncio.gather(*(seconds_until_unavailable(operation(database)) for operation in OPERATIONS))
    assert max(took) < TIMEOUT_S + SOON_S
    network.restore(reset_lost=False)
    began = time.monotonic()
    await database.read(lambda c: c.exec_driver_sql("SELECT 1"))
    await asyncio.gather(*(database.write(_write_mark), _reclaim(database)))
    assert time.monotonic() - began < SOON_S


async def test_a_cancelled_read_ends_immediately(network: UnreliableNetwork, database: PostgresDatabase) -> None:
    def cut_during_read(connection: sa.Connection) -> None:
        network.lose()
        connection.exec_driver_sql("SELECT 1")

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await database.read(cut_during_read)
    assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize("cut", [UnreliableNetwork.hold, UnreliableNetwork.lose])
async def test_the_message_bus_times_out_and_reconnects(network: UnreliableNetwork, cut: Cut) -> None:
    messages: list[str] = []
    bus = new_message_bus(network.url)
    bus.listen(messages.append)
    assert await bus.write(processes.list_all) == []
    cut(network)
    for _ in range(2):
        assert await seconds_until_unavailable(bus.write(processes.list_all)) < TIMEOUT_S + SOON_S
    assert await seconds_until_unavailable(bus.publish(["nobody"])) < TIMEOUT_S + SOON_S
    network.restore(reset_lost=False)
    await bus.publish(["heard"])
    await bus.write(processes.list_all)
    assert messages == ["heard"]
    cut(network)
    began = time.monotonic()
    await bus.close()
    assert time.monotonic() - began < SOON_S


async def test_connections_to_an_unresponsive_database_close_immediately(
    network: UnreliableNetwork, database: PostgresDatabase
) -> None:
    network.lose()
    began = time.monotonic()
    await database.close()
    assert time.monotonic() - began < SOON_S
