"""Retention: deletes what is older than the operator wants to keep, in bites that traffic does not feel."""

import asyncio
from typing import Final

from uplift_server.delivery.clock import Clock
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.upkeep import prune, prune_keys

BITE: Final = 300
BITE_PAUSE_MS: Final = 50
ROUND_EVERY_MS: Final = 60_000


class Retention:
    """Looks once a minute for events past their retention (ms; 0: keep everything)."""

    def __init__(self, database: Database, clock: Clock, *, retention_ms: int) -> None:
        self._database = database
        self._clock = clock
        self._retention_ms = retention_ms

    async def run(self, stopping: asyncio.Event) -> None:
        """Prune until stopped."""
        while not stopping.is_set():
            await self._clock.wait(stopping, ROUND_EVERY_MS)
            try:
                await self.prune_once(stopping)
            except Unavailable:
                continue

    async def prune_once(self, stopping: asyncio.Event) -> int:
        """One pass over everything old; how many events went."""
        before = self._clock.now_ms() - self._retention_ms
        # Keys first, and all of them: one that outlived its event could neither be answered nor be used again.
        while not stopping.is_set():
            keys = await self._database.write(lambda c: prune_keys(c, before=before, limit=BITE))
            if keys == 0:
                break
            await self._clock.wait(stopping, BITE_PAUSE_MS)
        count = 0
        after_seq = 0
        while not stopping.is_set():
            at = after_seq
            pruned = await self._database.write(lambda c: prune(c, before=before, after_seq=at, limit=BITE))  # noqa: B023 - run before the next turn
            count += pruned.events
            after_seq = pruned.through_seq
            if pruned.done:
                break
            await self._clock.wait(stopping, BITE_PAUSE_MS)
        return count
