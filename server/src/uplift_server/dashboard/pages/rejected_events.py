"""The rejected events for one account or, for operators, for all accounts.

Operators also see rejected events whose account is unknown.
"""

from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.core.timestamps import format_optional_timestamp
from uplift_server.dashboard.account_filter import filtered_caller
from uplift_server.dashboard.routes import account_page, operator_page
from uplift_server.dashboard.visit import Visit, link
from uplift_server.service.context import Listing
from uplift_server.service.errors import Invalid
from uplift_server.store.rejected_events import RejectedEventFilter

_LIST: Final = "rejected_events/list.html"


async def listed(visit: Visit) -> Response:
    """List the rejected events that match the filters in the URL, newest first."""
    problems: list[Problem] = []
    caller, asked = filtered_caller(visit, problems), visit.query
    event_type = asked.optional("event_type")
    wanted = RejectedEventFilter(
        () if event_type is None else (event_type,),
        asked.optional("event_id"),
        asked.optional("idempotency_key"),
        asked.instant("since", problems),
        asked.instant("until", problems),
    )
    context: dict[str, Any] = {
        "wanted": wanted,
        "event_type": event_type,
        "account_text": asked.text("account"),
        "narrowed": wanted != RejectedEventFilter() or bool(asked.text("account")),
        "path": visit.request.url.path,
        "accounts": visit.services.context.cache.accounts_by_id,
        "query": link(
            "",
            event_type=event_type,
            event_id=wanted.event_id,
            idempotency_key=wanted.idempotency_key,
            since=format_optional_timestamp(wanted.since),
            until=format_optional_timestamp(wanted.until),
        ),
    }
    try:
        page = await visit.services.rejected_events.page(caller, wanted, visit.listing(), problems=problems)
    except Invalid as error:
        return visit.refuse(_LIST, error.problems, rejected_events=[], next=None, **context)
    return visit.render(_LIST, rejected_events=page.items, next=visit.cursor(page.next_key), **context)


async def list_path(visit: Visit, text: str) -> str | None:
    """Return the URL of the list of rejected events with this event ID or idempotency key.

    Return None if the person can see no such rejected event.
    """
    if not text or not visit.caller.principal.allows(Scope.EVENTS_READ):
        return None
    is_id = ids.parse_uuid(text) is not None
    wanted = RejectedEventFilter(event_id=text) if is_id else RejectedEventFilter(idempotency_key=text)
    page = await visit.services.rejected_events.page(visit.caller, wanted, Listing(1))
    # Without a match, a page that is not the last page means that older rejected events were not searched.
    if not page.items and page.next_key is None:
        return None
    path = "/operator/rejected-events" if visit.account is None else visit.path("rejected-events")
    return link(path, event_id=wanted.event_id, idempotency_key=wanted.idempotency_key)


PAGES: Final = (account_page("/rejected-events", listed), operator_page("/rejected-events", listed))
