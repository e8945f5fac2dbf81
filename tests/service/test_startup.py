"""Which operator keys are in force after a start: the one of the settings alone, or the one that a first start made."""

import asyncio
from types import SimpleNamespace
from typing import Any

from tests.engines import Place

from uplift_server.delivery.cluster.cache_sync import CacheSync
from uplift_server.delivery.shards import LocalShards
from uplift_server.service.authentication import OPERATOR_PREFIX
from uplift_server.service.errors import Unauthorized
from uplift_server.service.keys import KEY_RANDOM_BYTES, new_key_text
from uplift_server.service.startup import begin
from uplift_server.store import keys

from .world import KEY_CLAIM, World

CONFIGURED = new_key_text(OPERATOR_PREFIX, bytes(KEY_RANDOM_BYTES))


def lets_in(world: World, key: str) -> bool:
    """Whether a server takes a key for an operator's."""
    try:
        return world.services.authenticator.principal(f"Bearer {key}".encode()).is_operator
    except Unauthorized:
        return False


async def test_a_stored_operator_key_stays_worthless_whatever_is_read_again(world: World) -> None:
    assert lets_in(world, world.operator_key)
    set_in_settings = World(world.database, world.place)
    await begin(set_in_settings.context, KEY_CLAIM, CONFIGURED)
    unused: Any = SimpleNamespace(known=())
    feed = CacheSync(world.database, set_in_settings.directory, LocalShards(), *[unused] * 5, set_in_settings.clock)
    await feed.begin()
    for _ in range(2):
        assert lets_in(set_in_settings, CONFIGURED)
        assert not lets_in(set_in_settings, world.operator_key)
        await feed._read_all()


async def test_two_first_starts_at_once_make_one_operator_key(place: Place) -> None:
    place.prepare()
    database = place.database()
    await database.open()
    try:
        worlds = [World(database, place), World(database, place)]
        texts = await asyncio.gather(*(begin(world.context, KEY_CLAIM, None) for world in worlds))
        [text] = [text for text in texts if text is not None]
        assert all(lets_in(world, text) for world in worlds)
        assert len(await database.read(lambda c: keys.live(c, after=0, limit=9))) == 1
    finally:
        await database.close()
