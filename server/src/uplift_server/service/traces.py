"""From any id to what became of it: accepted, matched, deliveries, attempts. For operators, across accounts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from uplift_server.core import ids
from uplift_server.core.deliveries.explanations import DeliveryExplanation
from uplift_server.core.limits import IDEMPOTENCY_KEY_CHARACTERS_MAX
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.explanations import Explained, Explanations, Owed
from uplift_server.service.principals import Caller
from uplift_server.service.replays import Replays, ShownReplay
from uplift_server.service.waiting_reasons import ShownDelivery, shown
from uplift_server.store import accounts, deliveries, endpoints, events, replays
from uplift_server.store.contract import Transaction
from uplift_server.store.records import Account, Attempt, Delivery, DeliveryFilter, Endpoint, Event, EventFilter

EVENTS_MAX: Final = 5
"""How many events of different accounts that have the same id are traced."""
DELIVERIES_MAX: Final = 25
"""How many deliveries of one event are shown with their attempts; all are counted."""
ATTEMPTS_MAX: Final = 20
LATEST: Final = 10
"""How many of its latest deliveries or events stand with an endpoint or an account."""


@dataclass(frozen=True, slots=True)
class TracedDelivery:
    """A delivery, how it stands in words, its attempts, newest first, and where it goes."""

    shown: ShownDelivery
    why: DeliveryExplanation
    endpoint: LiveEndpoint | None
    """None: it was deleted."""
    attempts: Sequence[Attempt]
    """The newest ATTEMPTS_MAX."""


@dataclass(frozen=True, slots=True)
class TracedEvent:
    """An event, what was owed because of it, and why nothing was to the account's other endpoints."""

    event: Event
    account: Account | None
    """None: it was deleted."""
    deliveries: Sequence[TracedDelivery]
    """DELIVERIES_MAX of them, the one asked for before the others."""
    owed: int
    """How many deliveries there are."""
    removed: Sequence[Explained]
    """Whose deliveries were removed before the event: as many as an overview tells of."""
    removed_count: int
    others: Sequence[Explained]
    """As many as an overview explains."""
    others_count: int
    urls: Mapping[str, str]
    """The URLs of the endpoints in `removed` and `others`, by id."""


@dataclass(frozen=True, slots=True)
class TracedEndpoint:
    """An endpoint and the latest that was owed to it."""

    record: Endpoint
    live: LiveEndpoint | None
    """None: it was deleted."""
    account: Account | None
    """None: it was deleted."""
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
    """All that a text may stand for."""

    events: Sequence[TracedEvent] = ()
    endpoint: TracedEndpoint | None = None
    account: TracedAccount | None = None
    replay: ShownReplay | None = None
    delivery: str | None = None
    """The delivery that was asked for among an event's."""

    @property
    def found(self) -> bool:
        """Whether there is anything."""
        return bool(self.events) or any((self.endpoint, self.account, self.replay))


class Traces:
    """Finds whatever has an id."""

    def __init__(self, context: ServiceContext, explanations: Explanations, owned: Replays) -> None:
        self._context = context
        self._explanations = explanations
        self._replays = owned

    async def find(self, caller: Caller, text: str) -> Trace:
        """What an id, or the idempotency key of events, stands for; an empty trace where that is nothing."""
        caller.require_operator()
        read = self._context.database.read
        event_id, delivery = _event_of(text)
        if event_id is not None:
            found = await read(lambda c: events.find_all(c, event_id, limit=EVENTS_MAX))
            if found or delivery is not None:
                return await self._of_events(caller, found, delivery)
        prefix = text.partition("_")[0]
        value = ids.parse_prefixed(prefix, text)
        if value is not None and prefix == ids.ENDPOINT:
            return await self._of_endpoint(value)
        if value is not None and prefix == ids.ACCOUNT:
            return await self._of_account(value)
        if value is not None and prefix == ids.REPLAY:
            replay = await read(lambda c: replays.get(c, None, value))
            return Trace(replay=None if replay is None else self._replays.shown(replay))
        if not 0 < len(text) <= IDEMPOTENCY_KEY_CHARACTERS_MAX:
            return Trace()
        return await self._of_events(caller, await read(lambda c: events.find_under_key(c, text, limit=EVENTS_MAX)))

    async def _of_events(self, caller: Caller, found: Sequence[Event], delivery: str | None = None) -> Trace:
        traced = [await self._of_event(caller, event, delivery) for event in found]
        if delivery is not None:
            # Of an id that several accounts have, the endpoint tells which event is meant.
            traced = [each for each in traced if any(_id(one.shown.delivery) == delivery for one in each.deliveries)]
        return Trace(events=traced, delivery=delivery)

    async def _of_event(self, caller: Caller, event: Event, delivery: str | None) -> TracedEvent:
        acting = replace(caller, account_seq=event.account_seq)
        about = await self._explanations.overview(acting, ids.uuid_text(event.id), Listing(DELIVERIES_MAX))
        owed = sorted(about.owed.items, key=lambda each: _id(each.shown.delivery) != delivery)
        if delivery is not None and not any(_id(each.shown.delivery) == delivery for each in owed):
            owed[:0] = await self._asked_for(acting, event, delivery)
        attempts = await self._context.database.read(lambda c: _attempts(c, [each.shown.delivery for each in owed]))
        cache = self._context.cache
        live = {each.id_text: each.record.url for each in cache.endpoints_of(event.account_seq)}
        return TracedEvent(
            event,
            cache.accounts.get(event.account_seq),
            [
                TracedDelivery(shown, why, cache.endpoints.get(shown.delivery.endpoint_seq), made)
                for (shown, why), made in zip(owed, attempts, strict=True)
            ],
            sum(event.deliveries.values()),
            about.removed,
            about.removed_count,
            about.others,
            about.others_count,
            {each.endpoint: live[each.endpoint] for each in (*about.removed, *about.others) if each.endpoint in live},
        )

    async def _asked_for(self, acting: Caller, event: Event, delivery: str) -> list[Owed]:
        """A delivery of an event that has too many to show them all; none if it has no such one."""
        parts = ids.parse_delivery_id(delivery)
        assert parts is not None, "it was made from parts"
        found = await self._context.database.read(lambda c: deliveries.find(c, event.account_seq, *parts))
        last = await self._context.database.read(lambda c: [each for made in _attempts(c, found) for each in made[:1]])
        return [
            Owed(each, await self._explanations.of_delivery(acting, each, last[0] if last else None))
            for each in shown(self._context, found)
        ]

    async def _of_endpoint(self, endpoint_id: bytes) -> Trace:
        def read(connection: Transaction) -> tuple[Endpoint, list[Delivery]] | None:
            record = endpoints.get_even_deleted(connection, endpoint_id)
            if record is None:
                return None
            wanted = DeliveryFilter(endpoint_seq=record.seq)
            return record, deliveries.page(connection, record.account_seq, wanted, limit=LATEST).items

        found = await self._context.database.read(read)
        if found is None:
            return Trace()
        record, latest = found
        cache = self._context.cache
        live, account = cache.endpoints_by_id.get(endpoint_id), cache.accounts.get(record.account_seq)
        return Trace(endpoint=TracedEndpoint(record, live, account, shown(self._context, latest)))

    async def _of_account(self, account_id: bytes) -> Trace:
        def read(connection: Transaction) -> tuple[Account, list[Event]] | None:
            account = accounts.get_even_deleted(connection, account_id)
            if account is None:
                return None
            return account, events.page(connection, account.seq, EventFilter(), limit=LATEST).items

        found = await self._context.database.read(read)
        if found is None:
            return Trace()
        account, latest = found
        cache = self._context.cache
        count = len(list(cache.endpoints_of(account.seq)))
        return Trace(account=TracedAccount(account, account.seq not in cache.accounts, count, latest))


def _event_of(text: str) -> tuple[bytes | None, str | None]:
    """The event id in an event's, a delivery's or an attempt's id, and the delivery's id where it is one of these."""
    event_id = ids.parse_uuid(text)
    if event_id is not None:
        return event_id, None
    parts = ids.parse_delivery_id(text) or ids.parse_attempt_id(text)
    return (None, None) if parts is None else (parts[0], ids.prefixed(ids.DELIVERY, parts[0] + parts[1]))


def _id(delivery: Delivery) -> str:
    return ids.delivery_id(delivery.event_id, delivery.endpoint_id)


def _attempts(connection: Transaction, owed: Sequence[Delivery]) -> list[list[Attempt]]:
    """The newest attempts of each."""
    return [
        deliveries.page_of_attempts(connection, each.event_seq, each.endpoint_seq, limit=ATTEMPTS_MAX).items
        for each in owed
    ]
