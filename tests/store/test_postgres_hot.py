"""The hot verbs of the PostgreSQL engine: the contract, several processes at once, crashes, and plans."""

from collections.abc import AsyncIterator

import pytest

from uplift_server.core.deliveries import Status
from uplift_server.store.postgres import PostgresDatabase
from uplift_server.store.schema import attempts

from .bench import Bench, Check, due, settled
from .conformance import CHECKS
from .replay_conformance import REPLAY_CHECKS


@pytest.fixture
async def bench(reached_url: str) -> AsyncIterator[Bench]:
    """An open, empty PostgreSQL database."""

    async def reopen() -> None:
        await bench.database.close()
        bench.database = PostgresDatabase(reached_url)
        await bench.database.open()

    bench = Bench(PostgresDatabase(reached_url), reopen)
    await bench.database.open()
    yield bench
    await bench.database.close()


@pytest.mark.parametrize("check", [*CHECKS, *REPLAY_CHECKS], ids=lambda check: check.__name__)
async def test_conforms(check: Check, bench: Bench) -> None:
    await check(bench)


async def test_what_receivers_say_is_stored_as_far_as_it_can_be(bench: Bench) -> None:
    """PostgreSQL's texts hold neither NUL nor half of a character; their attempt is to be remembered all the same."""
    await bench.append(bench.event(due(1)), bench.event(due(1)))
    settlements = [settled(each, Status.FAILED) for each in await bench.lease(1)]
    said = settlements[0].attempt._replace(error="no\0thing", location="https://\ud800/")  # type: ignore[union-attr]
    settlements[0] = settlements[0]._replace(attempt=said)
    assert await bench.database.settle(settlements) == frozenset()
    rows = await bench.rows(attempts)
    assert [(row.error, row.location) for row in rows] == [("no\ufffdthing", "https://\ufffd/"), (None, None)]
