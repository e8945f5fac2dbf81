"""The fixture of the service tests."""

from collections.abc import AsyncIterator

import pytest
from tests.engines import Place

from uplift_server.service.startup import prepare

from .world import PROCESS_KEY, World


@pytest.fixture
async def world(place: Place) -> AsyncIterator[World]:
    """Start the services on an empty database."""
    place.prepare()
    database = place.database()
    await database.open()
    world = World(database, place)
    world.operator_key = await prepare(world.context, PROCESS_KEY, None) or ""
    yield world
    await world.context.finish()
    await database.close()
