"""The rejected events for one account or, for operators, for all accounts.

Operators also see rejected events whose account is unknown.
"""

from typing import Any, Final

from starlette.responses import Response

from uplift_server.core.problems import Problem
from uplift_server.core.timestamps import format_optional_timestamp
from uplift_server.dashboard.account_filter import filtered_caller
from uplift_server.dashboard.routes import account_page, operator_page
from uplift_server.dashboard.visit import Visit, link
from uplift_server.service.errors import Invalid
from uplift_server.store.rejected_events import RejectedEventFilter

_LIST: Final = "rejected_events/list.html"


async def listed(visit: Visit) -> Response:
    """List the rejected events that match the filters in the URL, newest first."""
    problems: list[Problem] = []
    caller, asked = filtered_caller(visit, problems), visit.query
    event_type = asked.optional("event_type")
    wanted = RejectedEventFilter(
        () if event_type is None else (event_type,), asked.instant("since", problems), asked.instant("until", problems)
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
            since=format_optional_timestamp(wanted.since),
            until=format_optional_timestamp(wanted.until),
        ),
    }
    try:
        page = await visit.services.rejected_events.page(caller, wanted, visit.listing(), problems=problems)
    except Invalid as error:
        return visit.refuse(_LIST, error.problems, rejected_events=[], next=None, **context)
    return visit.render(_LIST, rejected_events=page.items, next=visit.cursor(page.next_key), **context)


PAGES: Final = (account_page("/rejected-events", listed), operator_page("/rejected-events", listed))
