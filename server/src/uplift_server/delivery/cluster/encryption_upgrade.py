"""Upgrades the encryption of a PostgreSQL database as soon as all servers run a release that supports the upgrade."""

import asyncio
from functools import partial
from typing import Final

import structlog

from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.ports import Clock
from uplift_server.store import encryption_upgrade
from uplift_server.store.contract import Database
from uplift_server.store.encryption import WrongSecretKey
from uplift_server.store.errors import Unavailable

CHECK_EVERY_MS: Final = 5_000
SEEN_WITHIN_MS: Final = 5_000
"""The maximum time until cache sync has copied the changed records to the cache of this process, in ms."""
_log = structlog.get_logger()


class EncryptionUpgrade:
    """Re-encrypts all encrypted values so that each value is bound to its database column.

    Afterward, this process rejects values that are not bound. Every process runs this upgrade. Row locks prevent
    conflicts between the processes.
    """

    def __init__(self, database: Database, cache: EndpointCache, clock: Clock) -> None:
        self._database = database
        self._cache = cache
        self._cipher = cache.cipher
        self._clock = clock

    async def run(self, stopping: asyncio.Event) -> None:
        """Bind the encrypted values when no server of an earlier release is running.

        Then wait until the process stops.
        """
        while not stopping.is_set() and not await self._is_finished():
            await self._clock.wait(stopping, CHECK_EVERY_MS)
        await self._clock.wait(stopping, SEEN_WITHIN_MS)
        # Decrypt the remaining old records in memory now, because the cipher rejects them after `reject_unbound`.
        for _ in self._cache.create_unbound_parts():
            await asyncio.sleep(0)
        self._cipher.reject_unbound()
        _log.info("encryption upgrade completed")
        await stopping.wait()

    async def _is_finished(self) -> bool:
        try:
            if await self._database.read(encryption_upgrade.accepts_unbound):
                return await self._upgrade()
        except Unavailable as error:
            _log.warning("encryption upgrade delayed", cause=str(error))
        except WrongSecretKey as error:
            _log.error("encryption upgrade failed", cause=str(error))
        else:
            return True
        return False

    async def _upgrade(self) -> bool:
        """Bind all values, unless a server of an earlier release is still running.

        Return whether all values are bound.
        """
        if not await self._database.write(encryption_upgrade.block_earlier_releases):
            return False
        last: int | None = 0
        while last is not None:
            last = await self._database.write(partial(encryption_upgrade.bind_batch, cipher=self._cipher, after=last))
        await self._database.write(partial(encryption_upgrade.finish, cipher=self._cipher))
        return True
