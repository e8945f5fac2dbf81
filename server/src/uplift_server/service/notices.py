"""The outbox of mails, for operators: what was sent, what waits, and what went wrong."""

from uplift_server.core.people.notifications import NoticeState
from uplift_server.service.means import Listing, Means
from uplift_server.service.principals import Caller
from uplift_server.store import notices
from uplift_server.store.notices import OwedMail
from uplift_server.store.records import Page


class Notices:
    """What people were told by mail, and what they are still to be told. What a mail says is not shown."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def page(self, caller: Caller, wanted: NoticeState | None, listing: Listing) -> Page[OwedMail]:
        """Mails, newest first; of those that wait, what is tried next comes first."""
        caller.require_operator()
        before = self._means.place(listing, 2 if wanted is NoticeState.WAITING else 1)
        return await self._means.database.read(lambda c: notices.page(c, wanted, limit=listing.limit, before=before))
