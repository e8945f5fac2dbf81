"""Read access to events."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from uplift_server.core import ids
from uplift_server.core.limits import OBJECT_ID_CHARACTERS_MAX
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.errors import AccountRequired
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, unknown_event_type
from uplift_server.service.waiting_reasons import ShownDelivery, show_page
from uplift_server.store import deliveries, events
from uplift_server.store.pages import PageRequest
from uplift_server.store.records import Event, EventFilter, Page, StreamPage

_KIND = "event"
Id = TypeVar("Id")


class EventQuery(NamedTuple):
    """Filters for an event list. Timestamps are Unix ms."""

    type: Sequence[str] = ()
    created_after: int | None = None
    created_before: int | None = None
    object_id: str | None = None
    id: Sequence[str] = ()
    test: bool | None = None
    """True for only test events, False for only other events, None for all events."""


class Events:
    """Reads accounts' events."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def page(
        self,
        caller: Caller,
        query: EventQuery,
        listing: Listing,
        *,
        with_bodies: bool = False,
        problems: Sequence[Problem] = (),
    ) -> Page[Event]:
        """Return a page of events."""
        caller.require(Scope.EVENTS_READ)
        filters, request = self._parsed(query, listing, problems)
        return await self._context.database.read(
            lambda c: events.page(c, caller.account_seq, filters, request, with_bodies=with_bodies)
        )

    async def forward(
        self,
        caller: Caller,
        query: EventQuery,
        listing: Listing,
        *,
        with_bodies: bool = False,
        problems: Sequence[Problem] = (),
    ) -> StreamPage[Event]:
        """Return a page of events, oldest first, for clients that poll for new events."""
        caller.require(Scope.EVENTS_READ)
        filters, request = self._parsed(query, listing, problems)
        position = await self._context.database.stream_position()
        return await self._context.database.read(
            lambda c: events.page_forward(c, caller.account_seq, filters, position, request, with_bodies=with_bodies)
        )

    async def get(self, caller: Caller, event: str) -> Event:
        """Return an event with its body.

        Raises NotFound, or AccountRequired if several accounts have an event with this ID.
        """
        caller.require(Scope.EVENTS_READ)
        return await find_event(self._context, caller, event)

    async def starting_with(self, caller: Caller, prefix: str, *, limit: int) -> list[Event]:
        """Return the events of the caller's account whose IDs start with `prefix`, newest first."""
        caller.require(Scope.EVENTS_READ)
        account_seq = caller.require_account()
        found = ids.uuid_range(prefix)
        if found is None:
            return []
        return await self._context.database.read(lambda c: events.find_in_id_range(c, account_seq, *found, limit=limit))

    async def deliveries(
        self, caller: Caller, event: str, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[ShownDelivery]:
        """Return a page of an event's deliveries. Raises the same errors as `get`."""
        caller.require(Scope.DELIVERIES_READ)
        found = await find_event(self._context, caller, event)
        request = self._context.page_request(listing, 1, problems)
        page = await self._context.database.read(lambda c: deliveries.page_of_event(c, found.seq, request))
        return show_page(self._context, page)

    def _parsed(
        self, query: EventQuery, listing: Listing, problems: Sequence[Problem]
    ) -> tuple[EventFilter, PageRequest]:
        found = [*problems]
        wanted = EventFilter(
            type_seqs=type_seqs_of(self._context.cache, query.type, "type", found),
            created_after=query.created_after,
            created_before=query.created_before,
            object_id=query.object_id,
            ids=parsed_ids(ids.parse_uuid, query.id, "id", found),
            is_test=query.test,
        )
        found += object_id_problems(query.object_id)
        return wanted, self._context.page_request(listing, 1, found)


async def find_event(context: ServiceContext, caller: Caller, event: str) -> Event:
    """Return an event with its body.

    Raises NotFound, or AccountRequired if several accounts have an event with this ID.
    """
    event_id = ids.parse_uuid(event)
    if event_id is None:
        raise not_found(_KIND, event)
    found = await context.database.read(lambda c: events.find(c, caller.account_seq, event_id))
    if not found:
        raise not_found(_KIND, event)
    if len(found) > 1:
        raise AccountRequired
    return found[0]


def object_id_problems(object_id: str | None) -> list[Problem]:
    """Return a problem if the object ID is invalid."""
    if object_id is None or ("\0" not in object_id and len(object_id) <= OBJECT_ID_CHARACTERS_MAX):
        return []
    text = f"The object ID is not valid. Use at most {OBJECT_ID_CHARACTERS_MAX} characters, without NUL characters."
    return [Problem("object_id", "characters_invalid", text)]


def type_seqs_of(cache: EndpointCache, names: Sequence[str], field: str, problems: list[Problem]) -> tuple[int, ...]:
    """Return the sequence numbers of event types, including deleted types.

    Add problems with unknown types to `problems`.
    """
    found = {name: _type_seq(cache, name) for name in names}
    problems += [
        unknown_event_type(name, field, catalog=cache.event_types) for name, seq in found.items() if seq is None
    ]
    return tuple(seq for seq in found.values() if seq is not None)


def _type_seq(cache: EndpointCache, name: str) -> int | None:
    live = cache.event_types.get(name)
    if live is not None:
        return live.seq
    # Several deleted event types may have had this name. The newest type has the highest number.
    return max((seq for seq, each in cache.event_types_by_seq.items() if each.name == name), default=None)


def parsed_ids(
    parse: Callable[[str], Id | None], texts: Sequence[str], field: str, problems: list[Problem]
) -> tuple[Id, ...]:
    """Parse the IDs in a filter. Add a problem to `problems` if an ID is invalid."""
    found = {text: parse(text) for text in texts}
    wrong = [text for text, value in found.items() if value is None]
    if wrong:
        text = f"{wrong[0][:100]!r} does not have the required format. Correct the ID, or omit the parameter."
        problems.append(Problem(field, "id_invalid", text))
    return tuple(value for value in found.values() if value is not None)
