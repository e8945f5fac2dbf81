"""Use cases that list deliveries and attempts, and resend and cancel deliveries."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from uplift_server.core import ids
from uplift_server.core.lifecycle import OPEN
from uplift_server.core.limits import BLOCKED_COUNTED_MAX
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.service import errors
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.delivery_queries import DeliveryQuery, delivery_filter
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import as_conflict, not_found, require_valid
from uplift_server.service.waiting_reasons import ShownDelivery, show_deliveries, show_page
from uplift_server.store import attempts, deliveries, endpoints, event_times
from uplift_server.store.attempts import ListedAttempt
from uplift_server.store.commands import Command, CommandKind, Result
from uplift_server.store.errors import Conflict, Missing
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Attempt, Delivery, DeliveryFilter, EndpointState, Page

SEARCH_MS: Final = 60
"""The time, in ms, after which a search that finds few deliveries reads no further range of events."""
_KIND = "delivery"


class DeliverySearch(NamedTuple):
    """A page of matching deliveries."""

    page: Page[ShownDelivery]
    searched_to: int | None
    """The timestamp of the oldest scanned event (Unix ms). None if the page is full or is the last page."""


class Deliveries:
    """Reads, resends and cancels accounts' deliveries."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def page(
        self, caller: Caller, query: DeliveryQuery, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[ShownDelivery]:
        """Return a page of deliveries, sorted by the sequence numbers of their events."""
        caller.require(Scope.DELIVERIES_READ)
        wanted, request = await self._parsed(caller, query, listing, problems)
        return show_page(self._context, await self._page(caller, wanted, request))

    async def page_of_endpoint(
        self, caller: Caller, endpoint: str, query: DeliveryQuery, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[ShownDelivery]:
        """Return a page of an endpoint's deliveries. Raises NotFound."""
        caller.require(Scope.DELIVERIES_READ)
        endpoint_seq = await self._endpoint_seq(caller, endpoint)
        wanted, request = await self._parsed(caller, query, listing, problems)
        wanted = replace(wanted, endpoint_seqs=(endpoint_seq,))
        return show_page(self._context, await self._page(caller, wanted, request))

    async def search(
        self, caller: Caller, query: DeliveryQuery, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> DeliverySearch:
        """Return a page of deliveries. The deliveries of the newest event come first.

        The search stops after SEARCH_MS, even if the page is not full yet.
        """
        caller.require(Scope.DELIVERIES_READ)
        wanted, request = await self._parsed(caller, query, listing, problems)
        until = self._context.now() + SEARCH_MS
        found: list[Delivery] = []
        while True:
            page = await self._page(caller, wanted, request)
            found += page.items
            request = PageRequest(listing.limit - len(found), page.next_key)
            if page.next_key is None or request.limit == 0 or self._context.now() >= until:
                break
        searched_to = None
        if page.next_key is not None and request.limit:
            # All events with this number or a higher one were searched. The next search continues below this number.
            last_seq = page.next_key[0] + 1
            searched_to = await self._context.database.read(lambda c: event_times.created_from(c, last_seq))
        return DeliverySearch(show_page(self._context, Page(found, page.next_key)), searched_to)

    async def _parsed(
        self, caller: Caller, query: DeliveryQuery, listing: Listing, problems: Sequence[Problem]
    ) -> tuple[DeliveryFilter, PageRequest]:
        found = [*problems]
        wanted = await delivery_filter(self._context, caller, query, found)
        return wanted, self._context.page_request(listing, 2, found)

    async def _page(self, caller: Caller, wanted: DeliveryFilter, request: PageRequest) -> Page[Delivery]:
        return await self._context.database.read(lambda c: deliveries.page(c, caller.account_seq, wanted, request))

    async def get(self, caller: Caller, delivery: str) -> ShownDelivery:
        """Return a delivery.

        Raises NotFound, or AccountRequired if the delivery ID contains an event ID that exists in several accounts.
        """
        caller.require(Scope.DELIVERIES_READ)
        return await self._shown(caller, delivery)

    async def attempts(
        self, caller: Caller, delivery: str, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> tuple[Delivery, Page[Attempt]]:
        """Return a delivery and its attempts. Raises the same errors as `get`."""
        caller.require(Scope.DELIVERIES_READ)
        found = await self._get(caller, delivery)
        request = self._context.page_request(listing, 1, problems)
        page = await self._context.database.read(
            lambda c: attempts.page_of_delivery(c, found.event_seq, found.endpoint_seq, request)
        )
        return found, page

    async def list_attempts(
        self, caller: Caller, query: DeliveryQuery, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[ListedAttempt]:
        """Return a page of attempts, sorted by the sequence numbers of their events.

        The filters `outcome` and `status_code` apply to the attempts, not to their deliveries.
        """
        caller.require(Scope.DELIVERIES_READ)
        found = [*problems]
        wanted = await delivery_filter(self._context, caller, query, found, id_field="delivery")
        request = self._context.page_request(listing, 3, found)
        return await self._context.database.read(lambda c: attempts.page(c, caller.account_seq, wanted, request))

    async def get_attempt(self, caller: Caller, attempt: str) -> ListedAttempt:
        """Return an attempt.

        Raises NotFound, or AccountRequired if the attempt ID contains an event ID that exists in several accounts.
        """
        caller.require(Scope.DELIVERIES_READ)
        parts = ids.parse_attempt_id(attempt)
        if parts is None:
            raise not_found("attempt", attempt)
        event_id, endpoint_tail, number = parts
        delivery = await self._find(caller, event_id, endpoint_tail, "attempt", attempt)
        found = await self._context.database.read(
            lambda c: attempts.get(c, delivery.event_seq, delivery.endpoint_seq, number)
        )
        if found is None:
            raise not_found("attempt", attempt)
        return ListedAttempt(found, delivery)

    async def count_blocked(self, caller: Caller, found: Delivery) -> int:
        """Count the deliveries that this ordered delivery blocks, up to BLOCKED_COUNTED_MAX."""
        caller.require(Scope.DELIVERIES_READ)
        group = found.order_group
        if group is None or found.is_blocked or found.status not in OPEN:
            return 0
        return await self._context.database.read(
            lambda c: deliveries.count_blocked(c, found.endpoint_seq, group, limit=BLOCKED_COUNTED_MAX)
        )

    async def resend(self, caller: Caller, delivery: str, *, problems: Sequence[Problem] = ()) -> ShownDelivery:
        """Attempt a delivery now, even if it has already succeeded, failed or been cancelled.

        If the endpoint's worker does not respond in time, the attempt starts later. Raises NotFound. Raises Conflict if
        the delivery is a test, is blocked, is in flight or is already being resent, if its event has expired or was
        erased, or if its endpoint is not enabled.
        """
        caller.require(Scope.DELIVERIES_WRITE)
        await self._get(caller, delivery)
        require_valid(problems)
        return await self._context.run_shielded(self._resend(caller, delivery))

    async def cancel(
        self, caller: Caller, delivery: str, *, problems: Sequence[Problem] = ()
    ) -> tuple[ShownDelivery, bool]:
        """Cancel a pending or held delivery. Return the delivery, and whether it has been cancelled.

        If the endpoint's worker does not respond in time, it cancels the delivery later. Raises NotFound, or Conflict
        if the delivery is in flight or has already ended.
        """
        caller.require(Scope.DELIVERIES_WRITE)
        await self._get(caller, delivery)
        require_valid(problems)
        return await self._context.run_shielded(self._cancel(caller, delivery))

    async def _shown(self, caller: Caller, text: str) -> ShownDelivery:
        [found] = show_deliveries(self._context, [await self._get(caller, text)])
        return found

    async def _get(self, caller: Caller, text: str) -> Delivery:
        parts = ids.parse_delivery_id(text)
        if parts is None:
            raise not_found(_KIND, text)
        return await self._find(caller, *parts, _KIND, text)

    async def _find(self, caller: Caller, event_id: bytes, endpoint_tail: bytes, kind: str, text: str) -> Delivery:
        found = await self._context.database.read(
            lambda c: deliveries.find(c, caller.account_seq, event_id, endpoint_tail)
        )
        if not found:
            raise not_found(kind, text)
        if len(found) > 1:
            raise errors.AccountRequired
        return found[0]

    async def _resend(self, caller: Caller, text: str) -> ShownDelivery:
        found = await self._get(caller, text)
        endpoint = self._context.cache.endpoints.get(found.endpoint_seq)
        if endpoint is None:
            raise errors.Conflict("The endpoint was deleted. Create a new endpoint to receive future events.")
        if endpoint.record.state is not EndpointState.ENABLED:
            raise errors.Conflict(f"The endpoint is {endpoint.record.state.text}. Enable the endpoint, then try again.")
        await self._execute(caller, CommandKind.RESEND, "delivery.resent", found)
        return await self._shown(caller, text)

    async def _cancel(self, caller: Caller, text: str) -> tuple[ShownDelivery, bool]:
        found = await self._get(caller, text)
        result = await self._execute(caller, CommandKind.CANCEL, "delivery.cancelled", found)
        return await self._shown(caller, text), result.is_executed

    async def _execute(self, caller: Caller, kind: CommandKind, action: str, found: Delivery) -> Result:
        subject = ids.delivery_id(found.event_id, found.endpoint_id)
        entry = self._context.audit_entry(caller, action, subject, {"status": found.status.text}, found.account_seq)
        command = Command(kind, found.account_seq, found.endpoint_seq, entry, found.event_seq)
        try:
            return await self._context.engine.commands.execute(command)
        except Missing as error:
            raise not_found(_KIND, subject) from error
        except Conflict as error:
            raise as_conflict(error) from error

    async def _endpoint_seq(self, caller: Caller, text: str) -> int:
        """Return the sequence number of an endpoint. Raises NotFound."""
        live = self._context.find_endpoint(caller, text)
        if live is not None:
            return live.seq
        value = ids.parse_prefixed(ids.ENDPOINT, text)
        if value is not None:
            # Another process may have just created the endpoint.
            found = await self._context.database.read(lambda c: endpoints.get(c, caller.account_seq, value))
            if found is not None:
                return found.seq
        raise not_found("endpoint", text)
