"""The operator key is the configured one, or the one that the first start creates."""

import asyncio
from types import SimpleNamespace
from typing import Any

from tests.engines import Place

from uplift_server.delivery.cluster.cache_sync import CacheSync
from uplift_server.delivery.shards import LocalShards
from uplift_server.service.authentication import OPERATOR_PREFIX
from uplift_server.service.errors import Unauthorized
from uplift_server.service.keys import KEY_RANDOM_BYTES, new_key_text
from uplift_server.service.startup import prepare
from uplift_server.store import keys

from .world import PROCESS_KEY, World

CONFIGURED = new_key_text(OPERATOR_PREFIX, bytes(KEY_RANDOM_BYTES))


def accepts_operator_key(world: World, key: str) -> bool:
    """Return whether the server accepts a key as an operator key."""
    try:
        return world.services.authenticator.principal(f"Bearer {key}".encode()).is_operator
    except Unauthorized:
        return False


async def test_a_configured_operator_key_replaces_the_stored_one(world: World) -> None:
    assert accepts_operator_key(world, world.operator_key)
    configured = World(world.database, world.place)
    await prepare(configured.context, PROCESS_KEY, CONFIGURED)
    unused: Any = SimpleNamespace(known=())
    sync = CacheSync(world.database, configured.cache, LocalShards(), *[unused] * 5, configured.clock)
    await sync.begin()
    for _ in range(2):
        assert accepts_operator_key(configured, CONFIGURED)
        assert not accepts_operator_key(configured, world.operator_key)
        await sync._read_all()


async def test_two_concurrent_first_starts_create_one_operator_key(place: Place) -> None:
    place.prepare()
    database = place.database()
    await database.open()
    try:
        worlds = [World(database, place), World(database, place)]
        texts = await asyncio.gather(*(prepare(world.context, PROCESS_KEY, None) for world in worlds))
        [text] = [text for text in texts if text is not None]
        assert all(accepts_operator_key(world, text) for world in worlds)
        assert len(await database.read(lambda c: keys.list_live(c, after=0, limit=9))) == 1
    finally:
        await database.close()
