"""Deliveries and attempts: lists, resend and cancel."""

from collections.abc import Sequence
from typing import NamedTuple

from uplift_server.core import ids
from uplift_server.core.lifecycle import Status
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.service import errors
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.events import type_seq_of
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import ENDPOINT_UNKNOWN, as_conflict, not_found, require_valid
from uplift_server.service.waiting_reasons import ShownDelivery, show_deliveries, show_page
from uplift_server.store import deliveries, endpoints
from uplift_server.store.commands import Command, CommandKind, Result
from uplift_server.store.errors import Conflict, Missing
from uplift_server.store.records import Attempt, Delivery, DeliveryFilter, EndpointState, Page

_KIND = "delivery"


class DeliveryQuery(NamedTuple):
    """The filters of a list of deliveries. Timestamps are Unix ms."""

    status: Status | None = None
    endpoint: str | None = None
    type: str | None = None
    created_after: int | None = None
    created_before: int | None = None


class Deliveries:
    """Reads, resends and cancels the deliveries of accounts."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def page(
        self, caller: Caller, query: DeliveryQuery, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[ShownDelivery]:
        """Return deliveries, newest events first."""
        caller.require(Scope.DELIVERIES_READ)
        endpoint_seq, wrong = self._endpoint_seq(caller, query.endpoint)
        return await self._page(caller, endpoint_seq, query, listing, [*problems, *wrong])

    async def page_of_endpoint(
        self, caller: Caller, endpoint: str, query: DeliveryQuery, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[ShownDelivery]:
        """Return the deliveries of an endpoint. Raises NotFound."""
        caller.require(Scope.DELIVERIES_READ)
        endpoint_seq, _ = self._endpoint_seq(caller, endpoint)
        if endpoint_seq is None:
            endpoint_seq = await self._stored_endpoint_seq(caller, endpoint)
        return await self._page(caller, endpoint_seq, query, listing, problems)

    async def _page(
        self,
        caller: Caller,
        endpoint_seq: int | None,
        query: DeliveryQuery,
        listing: Listing,
        problems: Sequence[Problem],
    ) -> Page[ShownDelivery]:
        type_seq, unknown = type_seq_of(self._context.cache, query.type)
        before = self._context.decode_cursor(listing, 2, [*problems, *unknown])
        filters = DeliveryFilter(query.status, endpoint_seq, type_seq, query.created_after, query.created_before)
        page = await self._context.database.read(
            lambda c: deliveries.page(c, caller.account_seq, filters, limit=listing.limit, before=before)
        )
        return show_page(self._context, page)

    async def get(self, caller: Caller, delivery: str) -> ShownDelivery:
        """Return a delivery. Raises NotFound, and AccountRequired if several accounts have an event with its ID."""
        caller.require(Scope.DELIVERIES_READ)
        return await self._shown(caller, delivery)

    async def attempts(
        self, caller: Caller, delivery: str, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> tuple[Delivery, Page[Attempt]]:
        """Return a delivery and its attempts, newest first. Raises the errors of `get`."""
        caller.require(Scope.DELIVERIES_READ)
        found = await self._get(caller, delivery)
        before = self._context.decode_cursor(listing, 1, problems)
        page = await self._context.database.read(
            lambda c: deliveries.page_of_attempts(
                c, found.event_seq, found.endpoint_seq, limit=listing.limit, before=before
            )
        )
        return found, page

    async def resend(self, caller: Caller, delivery: str, *, problems: Sequence[Problem] = ()) -> ShownDelivery:
        """Attempt a delivery now, regardless of its status. If its worker does not respond, attempt it later.

        Raises NotFound, and Conflict if it is in flight or expired, or its endpoint is not enabled.
        """
        caller.require(Scope.DELIVERIES_WRITE)
        await self._get(caller, delivery)
        require_valid(problems)
        return await self._context.run_shielded(self._resend(caller, delivery))

    async def cancel(
        self, caller: Caller, delivery: str, *, problems: Sequence[Problem] = ()
    ) -> tuple[ShownDelivery, bool]:
        """Cancel a pending or held delivery. Return it, and False if a worker will cancel it later.

        Raises NotFound, and Conflict if the delivery is in flight or has another status.
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
        found = await self._context.database.read(lambda c: deliveries.find(c, caller.account_seq, *parts))
        if not found:
            raise not_found(_KIND, text)
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

    async def _stored_endpoint_seq(self, caller: Caller, text: str) -> int:
        """Read the number of an endpoint that is not in the cache yet. Raises NotFound."""
        value = ids.parse_prefixed(ids.ENDPOINT, text)
        if value is not None:
            found = await self._context.database.read(lambda c: endpoints.get(c, caller.account_seq, value))
            if found is not None:
                return found.seq
        raise not_found("endpoint", text)

    def _endpoint_seq(self, caller: Caller, text: str | None) -> tuple[int | None, list[Problem]]:
        if text is None:
            return None, []
        value = ids.parse_prefixed(ids.ENDPOINT, text)
        found = None if value is None else self._context.cache.endpoints_by_id.get(value)
        if found is None or caller.account_seq not in {None, found.record.account_seq}:
            return None, [ENDPOINT_UNKNOWN]
        return found.seq, []
