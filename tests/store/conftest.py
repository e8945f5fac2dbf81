"""Empty databases of both engines."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.postgres import PostgresServer

from uplift_server.store import schema_version
from uplift_server.store.postgres import PostgresDatabase
from uplift_server.store.sqlite import SqliteDatabase
from uplift_server.store.sqlite.connection import bound

from .bench import Bench
from .postgres_connection import connected
from .test_sqlite import sqlite_bench

ENGINES = ("sqlite", "postgresql")


@pytest.fixture(params=ENGINES)
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Connection]:
    """A connection to an empty database in autocommit mode."""
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.new_database()
        with connected(url) as connection:
            yield connection
        server.reuse_database(url)
        return
    schema_version.upgrade(tmp_path / "uplift.db", now_ms=0)
    with closing(sqlite3.connect(tmp_path / "uplift.db", isolation_level=None)) as raw, bound(raw) as connection:
        yield connection


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, or an empty text for SQLite."""
    return request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""


@pytest.fixture
async def any_bench(database_url: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """An open, empty database of either engine."""
    if not database_url:
        async with sqlite_bench(tmp_path, SqliteDatabase) as bench:
            yield bench
        return
    bench = Bench(PostgresDatabase(database_url), lambda: _reopen(bench, database_url))
    await bench.database.open()
    yield bench
    await bench.database.close()


async def _reopen(bench: Bench, url: str) -> None:
    await bench.database.close()
    bench.database = PostgresDatabase(url)
    await bench.database.open()
