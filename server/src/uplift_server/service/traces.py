"""Traces of events in all accounts, for operators.

The trace of an event contains its deliveries and attempts, and the reasons why the account's other endpoints have
no delivery. Operators can find a trace by the ID of an event, delivery, attempt, endpoint, account or replay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from uplift_server.core import ids
from uplift_server.core.deliveries.explanations import DeliveryExplanation
from uplift_server.core.limits import IDEMPOTENCY_KEY_CHARACTERS_MAX
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.explanations import Explained, ExplainedDelivery, Explanations
from uplift_server.service.principals import Caller
from uplift_server.service.replays import Replays, ShownReplay
from uplift_server.service.waiting_reasons import ShownDelivery, show_deliveries
from uplift_server.store import accounts, attempts, deliveries, endpoints, events, replays
from uplift_server.store.contract import Transaction
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Account, Attempt, Delivery, DeliveryFilter, Endpoint, Event, EventFilter

EVENTS_MAX: Final = 5
"""The maximum number of traced events. Several accounts can have an event with the same ID."""
DELIVERIES_MAX: Final = 25
"""The maximum number of deliveries per event in a trace."""
ATTEMPTS_MAX: Final = 20
LATEST_MAX: Final = 10
"""The maximum number of deliveries in an endpoint's trace, and of events in an account's trace."""


@dataclass(frozen=True, slots=True)
class TracedDelivery:
    """A delivery with its explanation, endpoint and attempts."""

    shown: ShownDelivery
    why: DeliveryExplanation
    endpoint: LiveEndpoint | None
    """The endpoint. None if it was deleted."""
    attempts: Sequence[Attempt]
    """The attempts, newest first, up to ATTEMPTS_MAX."""


@dataclass(frozen=True, slots=True)
class TracedEvent:
    """An event with its deliveries, and the reasons why the account's other endpoints have no delivery."""

    event: Event
    account: Account | None
    """The account. None if it was deleted."""
    deliveries: Sequence[TracedDelivery]
    """Up to DELIVERIES_MAX deliveries. The requested delivery comes first."""
    delivery_count: int
    """The event's total number of deliveries."""
    removed: Sequence[Explained]
    """Endpoints whose deliveries were deleted by retention, at most `explanations.OTHERS_MAX`."""
    removed_count: int
    others: Sequence[Explained]
    """Endpoints that never had a delivery, at most `explanations.OTHERS_MAX`."""
    others_count: int
    urls: Mapping[str, str]
    """The URL of each endpoint in `removed` and `others`. The keys are endpoint IDs."""


@dataclass(frozen=True, slots=True)
class TracedEndpoint:
    """An endpoint and its latest deliveries."""

    record: Endpoint
    live: LiveEndpoint | None
    """The endpoint. None if it was deleted."""
    account: Account | None
    """The account. None if it was deleted."""
    latest: Sequence[ShownDelivery]


@dataclass(frozen=True, slots=True)
class TracedAccount:
    """An account and its latest events."""

    account: Account
    deleted: bool
    endpoints: int
    latest: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Trace:
    """The events, endpoint, account or replay that a search for an ID found."""

    events: Sequence[TracedEvent] = ()
    endpoint: TracedEndpoint | None = None
    account: TracedAccount | None = None
    replay: ShownReplay | None = None
    delivery: str | None = None
    """The ID of the requested delivery."""

    @property
    def found(self) -> bool:
        """Whether the search found anything."""
        return bool(self.events) or any((self.endpoint, self.account, self.replay))


class Traces:
    """Finds the events, deliveries and endpoints that belong to an ID."""

    def __init__(self, context: ServiceContext, explanations: Explanations, replays: Replays) -> None:
        self._context = context
        self._explanations = explanations
        self._replays = replays

    async def find(self, caller: Caller, text: str) -> Trace:
        """Return the trace for any ID, an account's uid, or an event's idempotency key.

        The trace is empty if nothing matches.
        """
        caller.require_operator(reads=True)
        read = self._context.database.read
        event_id, delivery = _event_of(text)
        if event_id is not None:
            found = await read(lambda c: events.find_in_all_accounts(c, event_id, limit=EVENTS_MAX))
            if found or delivery is not None:
                return await self._of_events(caller, found, delivery)
        prefix = text.partition("_")[0]
        value = ids.parse_prefixed(prefix, text)
        if value is not None and prefix == ids.ENDPOINT:
            return await self._of_endpoint(value)
        account = self._context.cache.find_account(text)
        account_id = account.id if account is not None else value if prefix == ids.ACCOUNT else None
        if account_id is not None:
            return await self._of_account(account_id)
        if value is not None and prefix == ids.REPLAY:
            replay = await read(lambda c: replays.get(c, None, value))
            return Trace(replay=None if replay is None else self._replays.show(replay))
        if not 0 < len(text) <= IDEMPOTENCY_KEY_CHARACTERS_MAX:
            return Trace()
        return await self._of_events(
            caller, await read(lambda c: events.find_by_idempotency_key(c, text, limit=EVENTS_MAX))
        )

    async def _of_events(self, caller: Caller, found: Sequence[Event], delivery: str | None = None) -> Trace:
        traced = [await self._of_event(caller, event, delivery) for event in found]
        if delivery is not None:
            # If several accounts have an event with this ID, the delivery's endpoint determines the account.
            traced = [each for each in traced if any(_id(one.shown.delivery) == delivery for one in each.deliveries)]
        return Trace(events=traced, delivery=delivery)

    async def _of_event(self, caller: Caller, event: Event, delivery: str | None) -> TracedEvent:
        account_caller = replace(caller, account_seq=event.account_seq)
        about = await self._explanations.overview(account_caller, ids.uuid_text(event.id), Listing(DELIVERIES_MAX))
        explained = sorted(about.deliveries.items, key=lambda each: _id(each.shown.delivery) != delivery)
        if delivery is not None and not any(_id(each.shown.delivery) == delivery for each in explained):
            explained[:0] = await self._requested(account_caller, event, delivery)
        attempts = await self._context.database.read(
            lambda c: _attempts(c, [each.shown.delivery for each in explained])
        )
        cache = self._context.cache
        live = {each.id_text: each.record.url for each in cache.endpoints_of(event.account_seq)}
        return TracedEvent(
            event,
            cache.accounts.get(event.account_seq),
            [
                TracedDelivery(shown, why, cache.endpoints.get(shown.delivery.endpoint_seq), of_delivery)
                for (shown, why), of_delivery in zip(explained, attempts, strict=True)
            ],
            sum(event.deliveries.values()),
            about.removed,
            about.removed_count,
            about.others,
            about.others_count,
            {each.endpoint: live[each.endpoint] for each in (*about.removed, *about.others) if each.endpoint in live},
        )

    async def _requested(self, account_caller: Caller, event: Event, delivery: str) -> list[ExplainedDelivery]:
        """Return a list that contains only the requested delivery, or an empty list if the delivery does not exist.

        The trace needs this additional query if the event has more than DELIVERIES_MAX deliveries.
        """
        parts = ids.parse_delivery_id(delivery)
        assert parts is not None, "`_event_of` built the ID"
        found = await self._context.database.read(lambda c: deliveries.find(c, event.account_seq, *parts))
        last = await self._context.database.read(
            lambda c: [each for attempts in _attempts(c, found) for each in attempts[:1]]
        )
        return [
            ExplainedDelivery(
                each, await self._explanations.of_delivery(account_caller, each, last[0] if last else None)
            )
            for each in show_deliveries(self._context, found)
        ]

    async def _of_endpoint(self, endpoint_id: bytes) -> Trace:
        def read(connection: Transaction) -> tuple[Endpoint, list[Delivery]] | None:
            record = endpoints.get_including_deleted(connection, endpoint_id)
            if record is None:
                return None
            filters = DeliveryFilter(endpoint_seqs=(record.seq,))
            return record, deliveries.page(connection, record.account_seq, filters, PageRequest(LATEST_MAX)).items

        found = await self._context.database.read(read)
        if found is None:
            return Trace()
        record, latest = found
        cache = self._context.cache
        live, account = cache.endpoints_by_id.get(endpoint_id), cache.accounts.get(record.account_seq)
        return Trace(endpoint=TracedEndpoint(record, live, account, show_deliveries(self._context, latest)))

    async def _of_account(self, account_id: bytes) -> Trace:
        def read(connection: Transaction) -> tuple[Account, list[Event]] | None:
            account = accounts.get_including_deleted(connection, account_id)
            if account is None:
                return None
            return account, events.page(connection, account.seq, EventFilter(), PageRequest(LATEST_MAX)).items

        found = await self._context.database.read(read)
        if found is None:
            return Trace()
        account, latest = found
        cache = self._context.cache
        count = len(list(cache.endpoints_of(account.seq)))
        return Trace(account=TracedAccount(account, account.seq not in cache.accounts, count, latest))


def _event_of(text: str) -> tuple[bytes | None, str | None]:
    """Return the event ID and the delivery ID that the ID of an event, delivery or attempt contains.

    The delivery ID is None for an event. Both IDs are None for any other text.
    """
    event_id = ids.parse_uuid(text)
    if event_id is not None:
        return event_id, None
    parts = ids.parse_delivery_id(text) or ids.parse_attempt_id(text)
    return (None, None) if parts is None else (parts[0], ids.prefixed(ids.DELIVERY, parts[0] + parts[1]))


def _id(delivery: Delivery) -> str:
    return ids.delivery_id(delivery.event_id, delivery.endpoint_id)


def _attempts(connection: Transaction, of: Sequence[Delivery]) -> list[list[Attempt]]:
    """Return the newest attempts of each delivery."""
    return [
        attempts.page_of_delivery(connection, each.event_seq, each.endpoint_seq, PageRequest(ATTEMPTS_MAX)).items
        for each in of
    ]
