"""The outbox of mails, for operators: what was sent, what waits, and what went wrong."""

from uplift_server.core.people.notifications import NotificationState
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.principals import Caller
from uplift_server.store import outbox
from uplift_server.store.outbox import DueEmail
from uplift_server.store.records import Page


class OutboxView:
    """What people were told by mail, and what they are still to be told. What a mail says is not shown."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def page(self, caller: Caller, wanted: NotificationState | None, listing: Listing) -> Page[DueEmail]:
        """Mails, newest first; of those that wait, what is tried next comes first."""
        caller.require_operator()
        before = self._context.place(listing, 2 if wanted is NotificationState.WAITING else 1)
        return await self._context.database.read(lambda c: outbox.page(c, wanted, limit=listing.limit, before=before))
