"""Explanations of why an event did or did not reach each endpoint in its account."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from uplift_server.core import ids
from uplift_server.core.deliveries.causes import explain_attempt
from uplift_server.core.deliveries.explanations import (
    DeliveryExplanation,
    DeliveryFacts,
    EndpointFacts,
    EventFacts,
    explain_deleted_endpoint,
    explain_delivery,
    explain_listen_session,
    explain_removed_delivery,
)
from uplift_server.core.deliveries.listening import SESSIONS_PER_ACCOUNT_MAX
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.events.catalog import WEBHOOK_CREATED
from uplift_server.core.events.envelope import data_of
from uplift_server.core.events.operational import OPERATIONAL_TYPES
from uplift_server.core.limits import ENDPOINTS_PER_ACCOUNT_MAX
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.delivery.endpoint_cache import compiled_filter
from uplift_server.delivery.filters import FilterEvaluation
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.errors import Invalid
from uplift_server.service.events import find_event
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import require_valid
from uplift_server.service.waiting_reasons import ShownDelivery, show_deliveries
from uplift_server.store import attempts, deliveries, endpoints, listening
from uplift_server.store.contract import Transaction
from uplift_server.store.listening import ListenSession
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Attempt, Delivery, Endpoint, Event, Page

DELIVERIES_MAX: Final = 2 * ENDPOINTS_PER_ACCOUNT_MAX
"""The maximum number of deliveries per event.

The number is twice the endpoint limit, because endpoints that have since been deleted can also have deliveries.
"""
OTHERS_MAX: Final = 50
"""The maximum length of each of the lists `removed` and `others`, which contain endpoints without a delivery."""
DELETED_MAX: Final = 20
"""The maximum number of listed endpoints that were deleted before the event. Those created last are listed."""


@dataclass(frozen=True, slots=True)
class Explained:
    """The explanation of why an event did or did not reach one endpoint."""

    endpoint: str
    """The ID of the endpoint or the listen session."""
    why: DeliveryExplanation
    delivery: Delivery | None


class ExplainedDelivery(NamedTuple):
    """A delivery and its explanation."""

    shown: ShownDelivery
    why: DeliveryExplanation


@dataclass(frozen=True, slots=True)
class EventOverview:
    """An event, a page of its deliveries, and the reasons why other endpoints of its account have no delivery."""

    event: Event
    deliveries: Page[ExplainedDelivery]
    removed: list[Explained]
    """The endpoints whose delivery was deleted by retention, newest first, at most OTHERS_MAX."""
    removed_count: int
    others: list[Explained]
    """Endpoints that never had a delivery, newest first, then deleted endpoints and listen sessions.

    The list has at most OTHERS_MAX entries. Listen sessions require the scope `listen`.
    """
    others_count: int


class Explanations:
    """Explains each delivery of an event, and why the other endpoints have no delivery."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def of_event(
        self, caller: Caller, event: str, endpoint: str | None, *, problems: Sequence[Problem] = ()
    ) -> list[Explained]:
        """Explain why an event did or did not reach one endpoint, or each endpoint of its account.

        The explanations of existing endpoints come first, newest endpoint first. The explanations of deleted endpoints
        and listen sessions follow. Listen sessions require the scope `listen`. Raises the same errors as `Events.get`,
        or Invalid if the account never had the endpoint.
        """
        caller.require(Scope.DELIVERIES_READ)
        found = await find_event(self._context, caller, event)
        read = await self._context.database.read(lambda c: _read(c, caller, found, PageRequest(DELIVERIES_MAX)))
        about, filters = _about(found), _evaluation(found)
        by_endpoint = {each.shown.delivery.endpoint_seq: each for each in await self._explain_deliveries(about, read)}
        live = {each.seq: each.record for each in self._context.cache.endpoints_of(found.account_seq)}
        explained = [
            _of_explained(by_endpoint[seq]) if seq in by_endpoint else self._without(about, live[seq], read, filters)
            for seq in sorted({*live, *by_endpoint}, reverse=True)
        ]
        if endpoint is None:
            require_valid(problems)
            return [*explained, *_deleted_before(about, read), *map(_of_session, read.sessions)]
        explained += map(_of_session, read.sessions)
        own = self._context.cache.find_endpoint(found.account_seq, endpoint)
        wanted = endpoint if own is None else own.id_text
        one = [each for each in explained if each.endpoint == wanted]
        if not one:
            one = [await self._of_deleted(found, about, read, wanted, problems)]
        require_valid(problems)
        return one

    async def overview(self, caller: Caller, event: str, listing: Listing) -> EventOverview:
        """Return an event, a page of its deliveries, and the reasons why other endpoints have no delivery.

        Raises the same errors as `Events.get`.
        """
        caller.require(Scope.DELIVERIES_READ)
        found = await find_event(self._context, caller, event)
        request = self._context.page_request(listing, 1)
        read = await self._context.database.read(lambda c: _read(c, caller, found, request))
        about, filters = _about(found), _evaluation(found)
        live = {each.seq: each.record for each in self._context.cache.endpoints_of(found.account_seq)}
        without = sorted(live.keys() - read.endpoints, reverse=True)
        removed_seqs = [seq for seq in without if seq in read.attempted]
        never_seqs = [seq for seq in without if seq not in read.attempted]
        removed, others = (
            [self._without(about, live[seq], read, filters) for seq in some[:OTHERS_MAX]]
            for some in (removed_seqs, never_seqs)
        )
        more = [*_deleted_before(about, read), *map(_of_session, read.sessions)]
        others += more[: OTHERS_MAX - len(others)]
        page = read.deliveries.of(await self._explain_deliveries(about, read))
        return EventOverview(found, page, removed, len(removed_seqs), others, len(never_seqs) + len(more))

    async def of_delivery(self, caller: Caller, found: ShownDelivery, last: Attempt | None) -> DeliveryExplanation:
        """Explain a delivery. `last` is its last attempt."""
        caller.require(Scope.DELIVERIES_READ)
        delivery = found.delivery
        event = EventFacts(
            delivery.type,
            delivery.created_at,
            delivery.expires_at,
            is_test=delivery.is_test,
            is_erased=delivery.erased_at is not None,
        )
        return self._why(event, found, None if last is None or last.outcome is Outcome.DELIVERED else last)

    async def _explain_deliveries(self, event: EventFacts, read: "_Read") -> list[ExplainedDelivery]:
        return [
            ExplainedDelivery(each, self._why(event, each, read.failures.get(each.delivery.endpoint_seq)))
            for each in show_deliveries(self._context, read.deliveries.items)
        ]

    def _why(self, event: EventFacts, found: ShownDelivery, failure: Attempt | None) -> DeliveryExplanation:
        live = self._context.cache.endpoints.get(found.delivery.endpoint_seq)
        endpoint = None if live is None else _of_endpoint(live.record, found.next_probe_at)
        return self._explain(event, endpoint, _of_delivery(found, failure))

    async def _of_deleted(
        self, event: Event, about: EventFacts, read: "_Read", endpoint: str, problems: Sequence[Problem]
    ) -> Explained:
        """Explain why a deleted endpoint has no delivery. Raises Invalid if the account never had the endpoint."""
        endpoint_id = ids.parse_prefixed(ids.ENDPOINT, endpoint)
        deleted = None
        if endpoint_id is not None:
            account_seq, key = event.account_seq, endpoint_id
            deleted = await self._context.database.read(lambda c: endpoints.get_deleted(c, account_seq, key))
        if deleted is None:
            text = "The event's account has no endpoint with this ID. See GET /v1/endpoints."
            raise Invalid([*problems, Problem("endpoint", "endpoint_unknown", text)])
        record, deleted_at = deleted
        if record.seq in read.attempted:
            return self._without(about, record, read, None)
        facts = _of_endpoint(record, filters=_evaluation(event))
        return Explained(endpoint, explain_deleted_endpoint(about, facts, deleted_at), None)

    def _without(
        self, event: EventFacts, endpoint: Endpoint, read: "_Read", filters: FilterEvaluation | None
    ) -> Explained:
        """Explain why an endpoint has no delivery of an event.

        Either the server never created the delivery, or retention has deleted the delivery.
        """
        was_delivered = read.attempted.get(endpoint.seq)
        if was_delivered is None:
            facts = replace(_of_endpoint(endpoint, filters=filters), is_subject=_is_subject(event, endpoint))
            explanation = self._explain(event, facts, None)
        else:
            explanation = explain_removed_delivery(delivered=was_delivered)
        return Explained(ids.prefixed(ids.ENDPOINT, endpoint.id), explanation, None)

    def _explain(
        self, event: EventFacts, endpoint: EndpointFacts | None, delivery: DeliveryFacts | None
    ) -> DeliveryExplanation:
        return explain_delivery(
            event, endpoint, delivery, now_ms=self._context.now(), can_send=self._context.engine.status.sends()
        )


class _Read(NamedTuple):
    """The stored data that an event's explanations need."""

    deliveries: Page[Delivery]
    failures: dict[int, Attempt]
    """The failed last attempts of the deliveries on the page, by endpoint sequence number."""
    endpoints: set[int]
    """The sequence numbers of all endpoints that have or had a delivery of the event."""
    attempted: dict[int, bool]
    """Whether an attempt to deliver the event succeeded, by endpoint sequence number.

    Endpoints without attempts are absent.
    """
    deleted: list[tuple[Endpoint, int]]
    """Endpoints that were deleted before the event, each with the time of its deletion."""
    sessions: list[ListenSession]
    """The listen sessions of the event's account, or none if the caller cannot read listen sessions."""


def _read(connection: Transaction, caller: Caller, event: Event, request: PageRequest) -> _Read:
    sessions = PageRequest(SESSIONS_PER_ACCOUNT_MAX)
    page = deliveries.page_of_event(connection, event.seq, request)
    failed = [each.endpoint_seq for each in page.items if each.last_outcome not in (None, Outcome.DELIVERED)]
    return _Read(
        page,
        attempts.last_of_deliveries(connection, event.seq, failed),
        deliveries.endpoints_of_event(connection, event.seq),
        deliveries.successes_by_endpoint(connection, event.seq, limit=DELIVERIES_MAX),
        endpoints.list_deleted(connection, event.account_seq, event.created_at, limit=DELETED_MAX),
        listening.page(connection, event.account_seq, sessions).items if caller.principal.allows(Scope.LISTEN) else [],
    )


def _deleted_before(event: EventFacts, read: _Read) -> list[Explained]:
    """Explain why endpoints that were deleted before the event have no delivery.

    The result contains only the endpoints that were subscribed to the event's type.
    """
    found = []
    for record, deleted_at in read.deleted:
        facts = _of_endpoint(record)
        if not event.for_one_endpoint and record.seq not in read.endpoints and facts.is_subscribed_to(event.type):
            why = explain_deleted_endpoint(event, facts, deleted_at)
            found.append(Explained(ids.prefixed(ids.ENDPOINT, record.id), why, None))
    return found


def _about(event: Event) -> EventFacts:
    is_for_one_endpoint = event.is_test or event.type == WEBHOOK_CREATED
    return EventFacts(
        event.type,
        event.created_at,
        event.expires_at,
        is_for_one_endpoint,
        event.is_test,
        event.erased_at is not None,
        event.object_id,
    )


def _evaluation(event: Event) -> FilterEvaluation | None:
    """Return an object that evaluates filters against an event's data, or None if the event was erased."""
    return None if event.body is None else FilterEvaluation(data_of(event.body))


def _is_subject(event: EventFacts, endpoint: Endpoint) -> bool:
    """Return whether an operational event is about an endpoint or one of its deliveries."""
    if event.type not in OPERATIONAL_TYPES or event.object_id is None:
        return False
    delivery = ids.parse_delivery_id(event.object_id)
    if delivery is not None:
        return delivery[1] == ids.endpoint_tail(endpoint.id)
    return event.object_id == ids.prefixed(ids.ENDPOINT, endpoint.id)


def _of_endpoint(
    endpoint: Endpoint, next_probe_at: int | None = None, *, filters: FilterEvaluation | None = None
) -> EndpointFacts:
    return EndpointFacts(
        endpoint.state.text,
        endpoint.created_at,
        endpoint.updated_at,
        endpoint.event_types,
        next_probe_at,
        None if filters is None or endpoint.filter is None else filters.mismatch(compiled_filter(endpoint.filter)),
    )


def _of_explained(explained: ExplainedDelivery) -> Explained:
    delivery = explained.shown.delivery
    return Explained(ids.prefixed(ids.ENDPOINT, delivery.endpoint_id), explained.why, delivery)


def _of_session(session: ListenSession) -> Explained:
    return Explained(ids.prefixed(ids.LISTEN_SESSION, session.id), explain_listen_session(session.description), None)


def _of_delivery(found: ShownDelivery, failure: Attempt | None) -> DeliveryFacts:
    delivery = found.delivery
    return DeliveryFacts(
        delivery.status,
        found.waiting,
        delivery.attempts_made,
        delivery.completed_at,
        delivery.failed_reason,
        None if failure is None else explain_attempt(failure),
        delivery.blocked_by,
    )
