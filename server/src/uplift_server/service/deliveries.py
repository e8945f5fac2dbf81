"""Deliveries and attempts, as those read who may; the resend and the cancelling."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from uplift_server.core import ids
from uplift_server.core.lifecycle import Status
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.service import errors
from uplift_server.service.events import type_seq_of
from uplift_server.service.means import Listing, Means
from uplift_server.service.principals import Caller
from uplift_server.service.refusals import not_found, refusal, refuse
from uplift_server.service.waits import ShownDelivery, shown, shown_page
from uplift_server.store import audit, deliveries, endpoints, waiting
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict, Missing, StoreError
from uplift_server.store.hot_records import LeasedDelivery
from uplift_server.store.records import Attempt, Delivery, DeliveryFilter, EndpointState, Page

T = TypeVar("T")

_WHAT = "delivery"


class DeliveryQuery(NamedTuple):
    """Which deliveries are asked for. Instants are Unix ms."""

    status: Status | None = None
    endpoint: str | None = None
    type: str | None = None
    created_after: int | None = None
    created_before: int | None = None


class Deliveries:
    """What accounts read of their deliveries; the resend and the cancelling."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def page(
        self, caller: Caller, query: DeliveryQuery, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[ShownDelivery]:
        """Deliveries, those of the newest events first."""
        caller.require(Scope.DELIVERIES_READ)
        endpoint_seq, wrong = self._endpoint_seq(caller, query.endpoint)
        return await self._page(caller, endpoint_seq, query, listing, [*problems, *wrong])

    async def page_of_endpoint(
        self, caller: Caller, endpoint: str, query: DeliveryQuery, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[ShownDelivery]:
        """The deliveries of one endpoint. Raises NotFound."""
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
        type_seq, unknown = type_seq_of(self._means.directory, query.type)
        before = self._means.place(listing, 2, [*problems, *unknown])
        wanted = DeliveryFilter(query.status, endpoint_seq, type_seq, query.created_after, query.created_before)
        page = await self._means.database.read(
            lambda c: deliveries.page(c, caller.account_seq, wanted, limit=listing.limit, before=before)
        )
        return await shown_page(self._means, page)

    async def get(self, caller: Caller, delivery: str) -> ShownDelivery:
        """One delivery. Raises NotFound, and AccountRequired where several accounts have its event's id."""
        caller.require(Scope.DELIVERIES_READ)
        return await self._shown(caller, delivery)

    async def attempts(
        self, caller: Caller, delivery: str, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> tuple[Delivery, Page[Attempt]]:
        """The attempts of a delivery, newest first. Raises as `get` does."""
        caller.require(Scope.DELIVERIES_READ)
        found = await self._get(caller, delivery)
        before = self._means.place(listing, 1, problems)
        page = await self._means.database.read(
            lambda c: deliveries.page_of_attempts(
                c, found.event_seq, found.endpoint_seq, limit=listing.limit, before=before
            )
        )
        return found, page

    async def resend(self, caller: Caller, delivery: str, *, problems: Sequence[Problem] = ()) -> ShownDelivery:
        """Attempt a delivery once more, now, whatever its status.

        Raises NotFound, and Conflict while it is in flight, has expired, or its endpoint is not enabled.
        """
        caller.require(Scope.DELIVERIES_WRITE)
        await self._get(caller, delivery)
        refuse(problems)
        return await self._means.carry_out(self._resend(caller, delivery))

    async def cancel(self, caller: Caller, delivery: str, *, problems: Sequence[Problem] = ()) -> ShownDelivery:
        """End a delivery that is pending or held; it is not attempted any more.

        Raises NotFound, and Conflict for any other, or while it is in flight.
        """
        caller.require(Scope.DELIVERIES_WRITE)
        await self._get(caller, delivery)
        refuse(problems)
        return await self._means.carry_out(self._cancel(caller, delivery))

    async def _shown(self, caller: Caller, text: str) -> ShownDelivery:
        [found] = await shown(self._means, [await self._get(caller, text)])
        return found

    async def _get(self, caller: Caller, text: str) -> Delivery:
        parts = ids.parse_delivery_id(text)
        if parts is None:
            raise not_found(_WHAT, text)
        found = await self._means.database.read(lambda c: deliveries.find(c, caller.account_seq, *parts))
        if not found:
            raise not_found(_WHAT, text)
        if len(found) > 1:
            raise errors.AccountRequired
        return found[0]

    async def _resend(self, caller: Caller, text: str) -> ShownDelivery:
        found = await self._get(caller, text)
        endpoint = self._means.directory.endpoints.get(found.endpoint_seq)
        if endpoint is None:
            raise errors.Conflict("The endpoint has been deleted; nothing can be sent to it.")
        if endpoint.record.state is not EndpointState.ENABLED:
            raise errors.Conflict(f"The endpoint is {endpoint.record.state.text}. Enable it first.")
        now = self._means.now()
        lease_until, owner = self._means.engine.resend_lease(now)
        subject = ids.delivery_id(found.event_id, found.endpoint_id)
        details = {"status": found.status.text}

        def start(connection: Transaction, fence: int | None) -> LeasedDelivery:
            leased = deliveries.start_resend(
                connection,
                found.event_seq,
                found.endpoint_seq,
                fence=fence,
                now=now,
                lease_until=lease_until,
                owner=owner,
            )
            audit.add(connection, self._means.entry(caller, "delivery.resent", subject, details, found.account_seq))
            return leased

        self._means.engine.attempt_now(await self._taken_out(found, start))
        return await self._shown(caller, text)

    async def _cancel(self, caller: Caller, text: str) -> ShownDelivery:
        found = await self._get(caller, text)
        now, subject = self._means.now(), ids.delivery_id(found.event_id, found.endpoint_id)
        details = {"status": found.status.text}

        def cancel(connection: Transaction, fence: int | None) -> None:
            waiting.cancel(connection, found.event_seq, found.endpoint_seq, fence=fence, now=now)
            audit.add(connection, self._means.entry(caller, "delivery.cancelled", subject, details, found.account_seq))

        await self._taken_out(found, cancel)
        self._means.engine.measures.ended[Status.CANCELLED] += 1
        return await self._shown(caller, text)

    async def _taken_out(self, found: Delivery, change: Callable[[Transaction, int | None], T]) -> T:
        """Change a delivery that is not to be attempted meanwhile: taken out of the memory it waits in, if it does.

        The change is told the fence of its lease then; where it is refused, the delivery waits again.
        """
        withdrawn = await self._means.engine.withdraw(found.event_seq, found.endpoint_seq)
        fence = None if withdrawn is None else withdrawn.fence
        try:
            return await self._means.database.write(lambda c: change(c, fence))
        except StoreError as error:
            if isinstance(error, Missing):
                raise not_found(_WHAT, ids.delivery_id(found.event_id, found.endpoint_id)) from error
            if withdrawn is not None:
                self._means.engine.give_back(withdrawn)
            if isinstance(error, Conflict):
                raise refusal(error) from error
            raise

    async def _stored_endpoint_seq(self, caller: Caller, text: str) -> int:
        """Of one that another process may have just made. Raises NotFound."""
        value = ids.parse_prefixed(ids.ENDPOINT, text)
        if value is not None:
            found = await self._means.database.read(lambda c: endpoints.get(c, caller.account_seq, value))
            if found is not None:
                return found.seq
        raise not_found("endpoint", text)

    def _endpoint_seq(self, caller: Caller, text: str | None) -> tuple[int | None, list[Problem]]:
        if text is None:
            return None, []
        value = ids.parse_prefixed(ids.ENDPOINT, text)
        found = None if value is None else self._means.directory.endpoints_by_id.get(value)
        if found is None or caller.account_seq not in {None, found.record.account_seq}:
            return None, [Problem("endpoint", "endpoint_unknown", "There is no such endpoint. List the endpoints.")]
        return found.seq, []
