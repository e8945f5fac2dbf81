"""The hot verbs of the PostgreSQL engine: the contract, several processes at once, crashes, and plans."""

from collections.abc import AsyncIterator

import pytest

from uplift_server.store.postgres import PostgresDatabase

from .bench import Bench, Check
from .conformance import CHECKS
from .replay_conformance import REPLAY_CHECKS


@pytest.fixture
async def bench(postgres_url: str) -> AsyncIterator[Bench]:
    """An open, empty PostgreSQL database."""

    async def reopen() -> None:
        await bench.database.close()
        bench.database = PostgresDatabase(postgres_url)
        await bench.database.open()

    bench = Bench(PostgresDatabase(postgres_url), reopen)
    await bench.database.open()
    yield bench
    await bench.database.close()


@pytest.mark.parametrize("check", [*CHECKS, *REPLAY_CHECKS], ids=lambda check: check.__name__)
async def test_conforms(check: Check, bench: Bench) -> None:
    await check(bench)
