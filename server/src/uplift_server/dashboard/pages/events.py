"""Events: the list of events, and the page of one event."""

from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.problems import Problem
from uplift_server.core.timestamps import format_optional_timestamp
from uplift_server.dashboard import words
from uplift_server.dashboard.pages import rejected_events
from uplift_server.dashboard.routes import account_page
from uplift_server.dashboard.visit import PAGE_ITEMS, PART, Visit, link
from uplift_server.service.errors import Invalid
from uplift_server.service.events import EventQuery
from uplift_server.store.records import Event, Page

_LIST: Final = "events/list.html"
_PAGES: Final = {ids.DELIVERY: "deliveries", ids.ENDPOINT: "endpoints", ids.REPLAY: "replays"}
"""The ID prefixes of other objects that a person can search for. Each prefix maps to a path segment of the
object's page."""
_NONE: Final[Page[Event]] = Page([], None)


async def listed(visit: Visit) -> Response:
    """List the events of the account, newest first, or search for an ID."""
    problems: list[Problem] = []
    event_type = visit.query.optional("type")
    wanted = EventQuery(
        () if event_type is None else (event_type,),
        visit.query.instant("created_after", problems),
        visit.query.instant("created_before", problems),
        visit.query.optional("object_id"),
        test={"true": True, "false": False}.get(visit.query.text("test")),
    )
    beginning = visit.query.text("id")
    if beginning:
        return await _looked_for(visit, beginning, wanted)
    try:
        page = await visit.services.events.page(visit.caller, wanted, visit.listing(), problems=problems)
    except Invalid as error:
        return await _list(visit, wanted, _NONE, problems=error.problems)
    return await _list(visit, wanted, page)


async def _looked_for(visit: Visit, beginning: str, wanted: EventQuery) -> Response:
    """Redirect to the page of the object whose ID is `beginning`, or of the only event whose ID starts with it.

    If no event or more than one event matches, list the matches. If `beginning` is not valid, show a problem.
    """
    prefix = beginning.partition("_")[0]
    if prefix in _PAGES:
        return visit.leave(visit.path(_PAGES[prefix], beginning))
    if ids.uuid_range(beginning) is None:
        text = (
            f"Enter at least the first {ids.UUID_BEGINNING_CHARACTERS_MIN} hexadecimal digits of an event ID,"
            " or the complete ID of a delivery, endpoint or replay."
        )
        return await _list(visit, wanted, _NONE, problems=[Problem("id", "id_invalid", text)])
    found = await visit.services.events.starting_with(visit.caller, beginning, limit=PAGE_ITEMS)
    if len(found) == 1:
        return visit.leave(visit.path("events", ids.uuid_text(found[0].id)))
    return await _list(visit, wanted, Page(found, None))


async def _list(visit: Visit, wanted: EventQuery, page: Page[Event], *, problems: Sequence[Problem] = ()) -> Response:
    types = [each.name for each in visit.services.event_types.all()]
    # Add the filter's event types, because they may have been deleted.
    types += [name for name in wanted.type if name not in types]
    beginning = visit.query.text("id")
    context: dict[str, Any] = {
        "events": page.items,
        "next": visit.cursor(page.next_key),
        "wanted": wanted,
        "beginning": beginning,
        "rejected": None if page.items else await rejected_events.list_path(visit, beginning),
        "types": types,
        "narrowed": any(wanted) or wanted.test is not None or bool(beginning),
        "query": link(
            "",
            type="".join(wanted.type) or None,
            object_id=wanted.object_id,
            created_after=format_optional_timestamp(wanted.created_after),
            created_before=format_optional_timestamp(wanted.created_before),
            test=None if wanted.test is None else str(wanted.test).lower(),
        ),
        "has_rejected": await visit.services.rejected_events.any_of_account(visit.caller),
        "is_first": visit.query.optional("cursor") is None,
    }
    return visit.refuse(_LIST, problems, **context) if problems else visit.render(_LIST, **context)


async def shown(visit: Visit) -> Response:
    """Show one event with its body and deliveries. Explain why other endpoints did not receive the event."""
    overview = await visit.services.explanations.overview(visit.caller, visit.parameter("event"), visit.listing())
    endpoints = {each.id: each for each in visit.services.endpoints.all(visit.caller)}
    path = visit.path("events", visit.parameter("event"))
    return visit.render(
        "events/event.html",
        event=overview.event,
        owed=overview.deliveries.items,
        next=visit.cursor(overview.deliveries.next_key),
        removed=[(each, endpoints.get(_endpoint_id(each.endpoint))) for each in overview.removed],
        removed_count=overview.removed_count,
        others=[(each, endpoints.get(_endpoint_id(each.endpoint))) for each in overview.others],
        others_count=overview.others_count,
        endpoints=endpoints,
        reasons=words.REASONS,
        in_catalog=visit.services.event_types.exists(overview.event.type),
        whole=not visit.query.flag(PART),
        live=link(path, cursor=visit.query.optional("cursor"), **{PART: "live"}),
    )


def _endpoint_id(text: str) -> bytes:
    return ids.parse_prefixed(ids.ENDPOINT, text) or b""


PAGES: Final = (account_page("/events", listed), account_page("/events/{event}", shown))
