"""Finds stored events by idempotency key or chosen ID.

One query serves all requests in the same iteration of the event loop.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from uplift_server.core.limits import BATCH_EVENTS_MAX
from uplift_server.delivery.ingest import Draft
from uplift_server.store import known_events
from uplift_server.store.contract import Database
from uplift_server.store.errors import StoreError
from uplift_server.store.repeated_events import KnownEvents, StoredEvent

LOOKUP_SECONDS: Final = 0.25
"""How long a request waits for the lookup, in seconds.

The limit exists because the database can be slow or unavailable.
"""


class _Wanted(NamedTuple):
    account_seq: int
    draft: Draft
    found: "asyncio.Future[StoredEvent | None]"


class KnownEventFinder:
    """Finds stored events that a request repeats. Finds no events while the database is unavailable or slow."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted: list[_Wanted] = []
        self._query: asyncio.Task[None] | None = None

    def find(self, account_seq: int, draft: Draft) -> "asyncio.Future[StoredEvent | None]":
        """Look up the stored event that a draft repeats.

        A repeat has the same content, and the same idempotency key or ID. The result of the future is None if there is
        no such event, or if the database does not respond in time.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[StoredEvent | None] = loop.create_future()
        if self._database.health.trouble() is not None or len(self._wanted) >= BATCH_EVENTS_MAX:
            found.set_result(None)
            return found
        if not self._wanted:
            loop.call_later(LOOKUP_SECONDS, _give_up, self._wanted)
        self._wanted.append(_Wanted(account_seq, draft, found))
        if self._query is None:
            self._query = asyncio.create_task(self._run(), name="known events")
        return found

    async def _run(self) -> None:
        # Requests that arrive in one iteration of the event loop, or during a query, share the next query.
        await asyncio.sleep(0)
        while self._wanted:
            wanted, self._wanted = self._wanted, []
            known = await self._read(wanted)
            for account_seq, draft, found in wanted:
                if not found.done():
                    found.set_result(_of(known, account_seq, draft))
        self._query = None

    async def _read(self, wanted: Sequence[_Wanted]) -> KnownEvents:
        keys = {(each.account_seq, key) for each in wanted if (key := each.draft.idempotency_key) is not None}
        event_ids = {(each.account_seq, own_id) for each in wanted if (own_id := each.draft.id) is not None}
        try:
            return await self._database.read(lambda c: known_events.find(c, keys, event_ids))
        except StoreError:
            return KnownEvents()

    async def close(self) -> None:
        """Cancel the current query."""
        if self._query is not None:
            self._query.cancel()
            await asyncio.gather(self._query, return_exceptions=True)


def _give_up(wanted: Sequence[_Wanted]) -> None:
    for each in wanted:
        if not each.found.done():
            each.found.set_result(None)


def _of(known: KnownEvents, account_seq: int, draft: Draft) -> StoredEvent | None:
    """Return the known event that a draft repeats (same content, and same idempotency key or ID), or None."""
    stored = None
    if draft.idempotency_key is not None:
        stored = known.by_key.get((account_seq, draft.idempotency_key))
    if stored is None and draft.id is not None:
        stored = known.by_id.get((account_seq, draft.id))
    if stored is None or not stored.matches(draft.event_type.seq, draft.expires_at, draft.ordering_key, draft.data):
        return None
    return stored
