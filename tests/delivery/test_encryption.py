"""After the encryption upgrade of a shared database, an endpoint without earlier attempts still signs its requests."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from tests.caches import endpoint_cache

from uplift_server.delivery.cluster.encryption_upgrade import EncryptionUpgrade
from uplift_server.store.contract import Database
from uplift_server.store.encryption import Cipher

from .test_endpoint_cache import CIPHER, SECRET, account, endpoint
from .world import VirtualClock


class Upgraded:
    """A database in which another process has completed the encryption upgrade."""

    async def read(self, _body: Callable[..., Any]) -> bool:
        return False


async def test_an_unused_endpoint_signs_after_the_encryption_upgrade() -> None:
    cipher = Cipher(b"k" * 32, accepts_unbound=True)
    cache = endpoint_cache(cipher)
    earlier = endpoint(secret=CIPHER.encrypt(SECRET, bytes([1]) * 16, "secret", bound=False))
    cache.load([account()], [], [], [earlier])
    clock, stopping = VirtualClock(), asyncio.Event()
    running = asyncio.create_task(EncryptionUpgrade(cast(Database, Upgraded()), cache, clock).run(stopping))
    while cipher.accepts_unbound:
        await asyncio.sleep(0)
        if clock.next_at() is not None:
            clock.fire()
    assert cache.endpoints[1].parts.signer.sign(b"id", b"1", b"{}")
    stopping.set()
    await running
