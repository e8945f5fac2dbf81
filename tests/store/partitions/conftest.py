"""A separate database for each test, because partitions would affect other tests."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.postgres import PostgresServer
from tests.store.bench import NOW, Bench

from uplift_server.store.postgres import PostgresDatabase, schema_version
from uplift_server.store.postgres.connection import Opener


@pytest.fixture
async def bench(postgres_server: PostgresServer) -> AsyncIterator[Bench]:
    """An open, empty database that no other test uses. Its first partition starts at NOW."""
    url = await asyncio.to_thread(postgres_server.new_database, empty=True)
    await schema_version.prepare(url)
    raw = await Opener(url).raw()
    await raw.execute("UPDATE event_partitions SET begun_at = $1", NOW)
    await raw.close()
    bench = Bench(PostgresDatabase(url), lambda: None)  # type: ignore[arg-type, return-value]
    await bench.database.open()
    yield bench
    await bench.database.close()


@pytest.fixture
async def other_connection(bench: Bench) -> AsyncIterator[Any]:
    """Another connection to the same database."""
    pair = await bench.database._readers._open()  # type: ignore[attr-defined]
    yield pair.raw
    await pair.close()
