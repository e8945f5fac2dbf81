"""The services of one server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from uplift_server.service.beginnings import begin
from uplift_server.store import schema_version
from uplift_server.store.sqlite import SqliteDatabase

from .world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """The services over an empty database."""
    path = tmp_path / "uplift.db"
    schema_version.upgrade(path, now_ms=0)
    database = SqliteDatabase(path)
    await database.open()
    world = World(database, path)
    world.operator_key = await begin(world.means, None) or ""
    yield world
    await world.means.finish()
    await database.close()
