"""Search for objects by ID, ID prefix, URL, object ID, idempotency key or name."""

from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from typing import Final, NamedTuple

from uplift_server.core import ids
from uplift_server.core.limits import IDEMPOTENCY_KEY_CHARACTERS_MAX
from uplift_server.core.security.scopes import Scope
from uplift_server.service.context import ServiceContext
from uplift_server.service.events import object_id_problems
from uplift_server.service.principals import Caller
from uplift_server.store import deliveries, events, replays
from uplift_server.store.contract import Transaction
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Account, Event, EventFilter

HITS_MAX: Final = 50
TEXT_CHARACTERS_MAX: Final = 300
_EVENTS_MAX: Final = 10
"""The maximum number of events whose deliveries are read when the text is a delivery ID prefix."""
_UUID_DIGITS: Final = 32
_DELIVERIES_PER_EVENT_MAX: Final = 10_000
"""Maximum number of an event's deliveries among which a search by delivery ID looks."""
_DELIVERY_DIGITS: Final = 44


class HitKind(StrEnum):
    """The kind of object that a search found."""

    EVENT = "event"
    DELIVERY = "delivery"
    ENDPOINT = "endpoint"
    REPLAY = "replay"
    ACCOUNT = "account"
    OBJECT = "object"
    """An object ID. A hit of this kind represents all events about the object."""


class Hit(NamedTuple):
    """An object that a search found. Timestamps are Unix ms."""

    kind: HitKind
    id: str
    account: str | None
    """The public ID of the account that owns the found object. None if `kind` is OBJECT."""
    title: str
    at: int


class Search:
    """Finds objects in the caller's account.

    For an operator who has not selected an account, finds objects in all accounts.
    """

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def find(self, caller: Caller, text: str) -> list[Hit]:
        """Return the objects that match the text, at most HITS_MAX.

        Run one search after another, and stop after the first search that finds an object.
        """
        text = text.strip()[:TEXT_CHARACTERS_MAX]
        if not text or "\0" in text:
            return []
        prefix, _, digits = text.partition("_")
        found: list[Hit] = []
        if prefix in {ids.DELIVERY, ids.ATTEMPT}:
            found = await self._deliveries(caller, digits)
        elif prefix == ids.REPLAY:
            found = await self._replay(caller, text)
        elif ids.uuid_range(text) is not None:
            found = await self._events(caller, text)
        found = found or list(islice(self._cached(caller, text), HITS_MAX))
        found = found or await self._object(caller, text) or list(islice(self._endpoints(caller, text), HITS_MAX))
        if not found and caller.principal.is_operator:
            found = await self._by_key(caller, text)
        return found

    async def _events(self, caller: Caller, beginning: str) -> list[Hit]:
        if not caller.principal.allows(Scope.EVENTS_READ):
            return []
        return [_event(each) for each in await self._events_with_id(caller, beginning, HITS_MAX)]

    async def _events_with_id(self, caller: Caller, beginning: str, limit: int) -> list[Event]:
        between = ids.uuid_range(beginning)
        if between is None:
            return []
        return await self._context.database.read(
            lambda c: events.find_in_id_range(c, caller.account_seq, *between, limit=limit)
        )

    async def _deliveries(self, caller: Caller, digits: str) -> list[Hit]:
        """Find deliveries by the first hexadecimal digits of their ID.

        A delivery ID contains the digits of the event's ID, followed by the last 12 digits of the endpoint's ID.
        """
        digits = digits.lower()[:_DELIVERY_DIGITS]
        if not caller.principal.allows(Scope.DELIVERIES_READ):
            return []
        candidates = await self._events_with_id(caller, digits[:_UUID_DIGITS], _EVENTS_MAX)

        def read(connection: Transaction) -> Iterator[Hit]:
            # The digits of the endpoint select among all deliveries of an event.
            limit = HITS_MAX if len(digits) <= _UUID_DIGITS else _DELIVERIES_PER_EVENT_MAX
            for event in candidates:
                for each in deliveries.page_of_event(connection, event.seq, PageRequest(limit)).items:
                    text = ids.delivery_id(each.event_id, each.endpoint_id)
                    if text.removeprefix(f"{ids.DELIVERY}_").startswith(digits):
                        account = ids.prefixed(ids.ACCOUNT, each.account_id)
                        yield Hit(HitKind.DELIVERY, text, account, each.type, each.created_at)

        return await self._context.database.read(lambda c: list(islice(read(c), HITS_MAX)))

    async def _replay(self, caller: Caller, text: str) -> list[Hit]:
        value = ids.parse_prefixed(ids.REPLAY, text)
        if value is None or not caller.principal.allows(Scope.DELIVERIES_READ):
            return []
        found = await self._context.database.read(lambda c: replays.get(c, caller.account_seq, value))
        if found is None:
            return []
        account = ids.prefixed(ids.ACCOUNT, found.account_id)
        return [Hit(HitKind.REPLAY, text, account, f"Replay, {found.state.text}", found.created_at)]

    def _cached(self, caller: Caller, text: str) -> Iterator[Hit]:
        """Find endpoints by ID, uid or URL.

        If the caller has not selected an account, also find accounts by ID, uid, name or contact.
        """
        cache, wanted = self._context.cache, text.casefold()
        # If none of these conditions is true, the text is more likely an event's object ID than a part of a URL.
        if "/" in text or "." in text or text.startswith(f"{ids.ENDPOINT}_") or self._is_endpoint_uid(caller, text):
            yield from self._endpoints(caller, text)
        if caller.account_seq is None:
            for each in cache.accounts.values():
                if _is_named(each, text, wanted):
                    account = ids.prefixed(ids.ACCOUNT, each.id)
                    yield Hit(HitKind.ACCOUNT, account, account, each.name, each.created_at)

    def _endpoints(self, caller: Caller, text: str) -> Iterator[Hit]:
        """Find endpoints by the first characters of their ID, by their uid, or by a part of their URL."""
        cache = self._context.cache
        if not caller.principal.allows(Scope.ENDPOINTS_READ):
            return
        for endpoint in cache.endpoints.values():
            record = endpoint.record
            is_own = caller.account_seq in {None, record.account_seq}
            if is_own and (endpoint.id_text.startswith(text) or endpoint.is_named(text) or endpoint.has_in_url(text)):
                account = ids.prefixed(ids.ACCOUNT, cache.accounts[record.account_seq].id)
                yield Hit(HitKind.ENDPOINT, endpoint.id_text, account, record.url, record.created_at)

    def _is_endpoint_uid(self, caller: Caller, text: str) -> bool:
        account_seq = caller.account_seq
        return account_seq is not None and self._context.cache.find_endpoint(account_seq, text) is not None

    async def _object(self, caller: Caller, text: str) -> list[Hit]:
        """Return one hit if there are events about an object with this ID."""
        if not caller.principal.allows(Scope.EVENTS_READ) or object_id_problems(text):
            return []
        wanted = EventFilter(object_id=text)
        page = await self._context.database.read(lambda c: events.page(c, caller.account_seq, wanted, PageRequest(1)))
        return [Hit(HitKind.OBJECT, text, None, "Events about this object", each.created_at) for each in page.items]

    async def _by_key(self, caller: Caller, text: str) -> list[Hit]:
        """Find the events that have this idempotency key."""
        if len(text) > IDEMPOTENCY_KEY_CHARACTERS_MAX:
            return []
        found = await self._context.database.read(lambda c: events.find_by_idempotency_key(c, text, limit=HITS_MAX))
        return [_event(each) for each in found if caller.account_seq in {None, each.account_seq}]


def _event(event: Event) -> Hit:
    account = ids.prefixed(ids.ACCOUNT, event.account_id)
    return Hit(HitKind.EVENT, ids.uuid_text(event.id), account, event.type, event.created_at)


def _is_named(account: Account, text: str, wanted: str) -> bool:
    if text.startswith(f"{ids.ACCOUNT}_"):
        return ids.prefixed(ids.ACCOUNT, account.id).startswith(text)
    if account.uid is not None and wanted == account.uid.casefold():
        return True
    return wanted in account.name.casefold() or any(wanted in each.casefold() for each in account.contact_emails)
