"""An empty database for tests of single verbs."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from uplift_server.store import schema_version
from uplift_server.store.sqlite.connection import bound


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sa.Connection]:
    """A connection to an empty database."""
    schema_version.upgrade(tmp_path / "uplift.db", now_ms=0)
    with closing(sqlite3.connect(tmp_path / "uplift.db", isolation_level=None)) as raw, bound(raw) as connection:
        yield connection
