"""Whether anything an account's pages show has changed, told cheaply enough to be asked every second."""

from collections.abc import Hashable

from uplift_server.core.security.scopes import Scope
from uplift_server.service.context import ServiceContext
from uplift_server.service.principals import Caller
from uplift_server.store import changes


class Changes:
    """Stamps of accounts: as long as one stays the same, nothing happened."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def stamp(self, caller: Caller) -> Hashable:
        """What stands for the present state of the caller's account. Raises Unavailable.

        Events, what people did, attempts of tests, what was counted of the last hours, how far replays are and who
        listens is read from the store, six look-ups; all other attempts move the health of their endpoints, which is in
        memory.
        """
        caller.require(Scope.EVENTS_READ)
        account_seq = caller.one_account()
        stored = await self._context.database.read(
            lambda c: (
                changes.newest(c, account_seq),
                changes.counted(c, account_seq),
                changes.replays_under_way(c, account_seq),
                changes.listeners(c, account_seq),
            )
        )
        healths = [
            (live.seq, live.health, live.record.updated_at) for live in self._context.cache.endpoints_of(account_seq)
        ]
        return stored, hash(tuple(healths))
