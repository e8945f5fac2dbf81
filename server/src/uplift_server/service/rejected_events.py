"""Read access to rejected events."""

from collections.abc import Sequence

from uplift_server.core import ids
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found
from uplift_server.store import rejected_events
from uplift_server.store.records import Page
from uplift_server.store.rejected_events import RejectedEvent, RejectedEventFilter

_KIND = "rejected event"


class RejectedEvents:
    """Reads accounts' rejected events.

    Only callers that act for all accounts see rejected events for unknown accounts.
    """

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def page(
        self, caller: Caller, filters: RejectedEventFilter, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[RejectedEvent]:
        """Return a page of rejected events."""
        caller.require(Scope.EVENTS_READ)
        request = self._context.page_request(listing, 1, problems)
        return await self._context.database.read(
            lambda c: rejected_events.page(c, caller.account_seq, filters, request)
        )

    async def get(self, caller: Caller, rejected: str) -> RejectedEvent:
        """Return a rejected event. Raises NotFound."""
        caller.require(Scope.EVENTS_READ)
        rejected_id = ids.parse_prefixed(ids.REJECTED_EVENT, rejected)
        if rejected_id is not None:
            found = await self._context.database.read(lambda c: rejected_events.get(c, caller.account_seq, rejected_id))
            if found is not None:
                return found
        raise not_found(_KIND, rejected)

    async def any_of_account(self, caller: Caller) -> bool:
        """Return whether the caller's account has rejected events."""
        caller.require(Scope.EVENTS_READ)
        account_seq = caller.require_account()
        return await self._context.database.read(lambda c: rejected_events.has_any(c, account_seq))
