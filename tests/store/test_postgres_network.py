"""A network to PostgreSQL that goes away without a word: waits are as long as was said, and all heals by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import sqlalchemy as sa
from tests.between import Between

from uplift_server.store import processes
from uplift_server.store.errors import Unavailable
from uplift_server.store.postgres import PostgresDatabase
from uplift_server.store.postgres.message_bus import new_message_bus

pytestmark = pytest.mark.timing


GIVEN_UP_S = 0.7
SOON_S = 0.7
Cut = Callable[[Between], None]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "connection.OPERATION_SECONDS_MAX",
        "connection.CONNECT_SECONDS_MAX",
        "message_bus.OPERATION_SECONDS_MAX",
    ):
        monkeypatch.setattr(f"uplift_server.store.postgres.{name}", GIVEN_UP_S)


@pytest.fixture
async def database(network: Between) -> AsyncIterator[PostgresDatabase]:
    """One with several connections that rest."""
    database = PostgresDatabase(network.url)
    slow = [database.read(lambda c: c.exec_driver_sql("SELECT pg_sleep(0.1)")) for _ in range(3)]
    await asyncio.gather(*slow, *(database.reclaim(now=1) for _ in range(4)), database.write(_noted))
    yield database
    await database.close()


def _noted(connection: sa.Connection) -> None:
    connection.exec_driver_sql("INSERT INTO marks (name, value) VALUES ('m', 1) ON CONFLICT DO NOTHING")


async def refused(verb: Coroutine[Any, Any, Any]) -> float:
    """How long it took until a verb was given up."""
    began = time.monotonic()
    with pytest.raises(Unavailable, match="the database does not answer"):
        await verb
    return time.monotonic() - began


async def _reclaim(database: PostgresDatabase) -> int:
    return await database.reclaim(now=1)


VERBS: list[Callable[[PostgresDatabase], Coroutine[Any, Any, Any]]] = [
    lambda database: database.read(_noted),
    lambda database: database.write(_noted),
    _reclaim,
]


@pytest.mark.parametrize("cut", [Between.hold, Between.lose])
async def test_verbs_are_given_up_in_time_and_the_next_after_that_are_answered(
    network: Between, database: PostgresDatabase, cut: Cut
) -> None:
    cut(network)
    took = await asyncio.gather(*(refused(verb(database)) for verb in VERBS))
    assert max(took) < GIVEN_UP_S + SOON_S
    network.mend(tell=False)
    began = time.monotonic()
    await database.read(lambda c: c.exec_driver_sql("SELECT 1"))
    await asyncio.gather(*(database.write(_noted), _reclaim(database)))
    assert time.monotonic() - began < SOON_S


async def test_whoever_gives_up_a_read_goes_at_once(network: Between, database: PostgresDatabase) -> None:
    def cut_amid(connection: sa.Connection) -> None:
        network.lose()
        connection.exec_driver_sql("SELECT 1")

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await database.read(cut_amid)
    assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize("cut", [Between.hold, Between.lose])
async def test_the_line_is_given_up_in_time_and_opened_anew(network: Between, cut: Cut) -> None:
    told: list[str] = []
    line = new_message_bus(network.url)
    line.listen(told.append)
    assert await line.write(processes.list_all) == []
    cut(network)
    for _ in range(2):
        assert await refused(line.write(processes.list_all)) < GIVEN_UP_S + SOON_S
    assert await refused(line.publish(["nobody"])) < GIVEN_UP_S + SOON_S
    network.mend(tell=False)
    await line.publish(["heard"])
    await line.write(processes.list_all)
    assert told == ["heard"]
    cut(network)
    began = time.monotonic()
    await line.close()
    assert time.monotonic() - began < SOON_S


async def test_a_database_that_does_not_answer_is_closed_at_once(network: Between, database: PostgresDatabase) -> None:
    network.lose()
    began = time.monotonic()
    await database.close()
    assert time.monotonic() - began < SOON_S
