"""Empty databases of both kinds for tests of single verbs."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.postgres import PostgresServer

from uplift_server.store import schema_version
from uplift_server.store.sqlite.connection import bound

from .postgres_connection import connected

ENGINES = ("sqlite", "postgresql")


@pytest.fixture(params=ENGINES)
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Connection]:
    """A connection to an empty database, every statement a transaction of its own."""
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.new_database()
        with connected(url) as connection:
            yield connection
        server.give_back(url)
        return
    schema_version.upgrade(tmp_path / "uplift.db", now_ms=0)
    with closing(sqlite3.connect(tmp_path / "uplift.db", isolation_level=None)) as raw, bound(raw) as connection:
        yield connection
