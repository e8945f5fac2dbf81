"""Crashes of the PostgreSQL server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest
from tests.postgres import PostgresServer

from uplift_server.store.errors import Unavailable
from uplift_server.store.postgres import PostgresDatabase
from uplift_server.store.schema import attempts, deliveries, events

from .bench import Bench, due, settled

R = TypeVar("R")


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server with production durability."""
    server = PostgresServer("-c shared_buffers=32MB")
    yield server
    server.close()


@pytest.mark.parametrize("mode", ["immediate", "fast"])
async def test_confirmed_writes_survive_a_crash_of_postgresql(server: PostgresServer, mode: str) -> None:
    url = await asyncio.to_thread(server.new_database)
    first, second = (Bench(PostgresDatabase(url), _never, number << 32) for number in (0, 1))
    stored: set[bytes] = set()
    settled_ones: set[tuple[int, int]] = set()
    stopped = 0
    ended = asyncio.Event()

    async def until_unavailable(do: Callable[[], Awaitable[None]]) -> None:
        nonlocal stopped
        try:
            while True:
                await do()
        except Unavailable:
            stopped += 1

    def appending(bench: Bench, number: int) -> Callable[[], Awaitable[None]]:
        async def append() -> None:
            key = None if number % 2 else f"{number}:{len(stored)}"
            (appended,) = await bench.append(bench.event(due(1), key=key))
            stored.add(appended.id)
            if len(stored) == 500:
                ended.set()

        return append

    def settling(bench: Bench) -> Callable[[], Awaitable[None]]:
        async def settle() -> None:
            batch = [settled(each) for each in await bench.lease(1, 20)]
            assert await bench.database.settle(batch) == frozenset()
            settled_ones.update((each.event_seq, each.endpoint_seq) for each in batch)
            await asyncio.sleep(0)

        return settle

    both = [first, second]
    for bench in both:
        await bench.database.open()
    work = [until_unavailable(appending(both[number % 2], number)) for number in range(16)]
    work += [until_unavailable(settling(bench)) for bench in both]
    running = asyncio.gather(*work)
    await ended.wait()
    await asyncio.to_thread(server.stop, mode)
    await running
    assert stopped == len(work)
    await asyncio.to_thread(server.start)
    assert {row.id for row in await first.rows(events)} >= stored
    assert {(row.event_seq, row.endpoint_seq) for row in await first.rows(attempts)} >= settled_ones
    assert await first.count(deliveries) == await first.count(events)
    await second.append(second.event(due(1), key="after"))
    for bench in both:
        await bench.database.close()


async def _never() -> None:
    raise AssertionError
