"""The conformance suite on PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from tests.postgres import ONE_ROW, PostgresServer, name_of

from uplift_server.core.lifecycle import Status
from uplift_server.store.postgres import PostgresDatabase
from uplift_server.store.schema import attempts

from .bench import Bench, Check, due, settled
from .conformance import CHECKS
from .replay_conformance import REPLAY_CHECKS


@pytest.fixture
async def bench(direct_or_pooled_url: str) -> AsyncIterator[Bench]:
    """An open, empty PostgreSQL database."""
    async with opened(direct_or_pooled_url) as bench:
        yield bench


@pytest.fixture(scope="module")
def misled_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database whose planner prefers nested loops."""
    url = postgres_server.new_database(untouched=True)
    postgres_server.execute(ONE_ROW, name_of(url))
    yield url
    postgres_server.execute(f"DROP DATABASE {name_of(url)} WITH (FORCE)")


@pytest.fixture
async def misled_bench(postgres_server: PostgresServer, misled_url: str) -> AsyncIterator[Bench]:
    """The database whose planner prefers nested loops, open and empty."""
    async with opened(misled_url) as bench:
        yield bench
    postgres_server.empty(misled_url)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Bench]:
    """Open a database that can be opened again. Close it at the end of the block."""

    async def reopen() -> None:
        await bench.database.close()
        bench.database = PostgresDatabase(url)
        await bench.database.open()

    bench = Bench(PostgresDatabase(url), reopen)
    await bench.database.open()
    yield bench
    await bench.database.close()


@pytest.mark.parametrize("check", [*CHECKS, *REPLAY_CHECKS], ids=lambda check: check.__name__)
async def test_conforms(check: Check, bench: Bench) -> None:
    await check(bench)


@pytest.mark.parametrize("check", [*CHECKS, *REPLAY_CHECKS], ids=lambda check: check.__name__)
async def test_conforms_with_wrong_statistics(check: Check, misled_bench: Bench) -> None:
    await check(misled_bench)


async def test_responses_with_unstorable_characters_are_stored(bench: Bench) -> None:
    """PostgreSQL cannot store NUL or lone surrogates. The attempts must still be stored."""
    await bench.append(bench.event(due(1)), bench.event(due(1)))
    settlements = [settled(each, Status.FAILED) for each in await bench.lease(1)]
    attempt = settlements[0].attempt._replace(error="no\0thing", location="https://\ud800/")  # type: ignore[union-attr]
    settlements[0] = settlements[0]._replace(attempt=attempt)
    assert await bench.database.settle(settlements) == frozenset()
    rows = await bench.rows(attempts)
    assert [(row.error, row.location) for row in rows] == [("no\ufffdthing", "https://\ufffd/"), (None, None)]
