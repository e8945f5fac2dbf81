"""The Trace page, which searches all accounts for an object by its ID."""

from collections import Counter
from typing import Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.dashboard.pages import rejected_events
from uplift_server.dashboard.routes import operator_page
from uplift_server.dashboard.visit import Visit
from uplift_server.dashboard.words import OUTCOMES, REASONS, REPLAY_WAITS, TRIGGERS
from uplift_server.service.traces import ATTEMPTS_MAX, Trace, TracedEvent

_ID_CHARACTERS_MAX: Final = 300
OTHERS_SHOWN: Final = 20
"""Maximum number of rows in the list of deleted deliveries, and in the list of endpoints without a delivery."""


async def trace(visit: Visit) -> Response:
    """Show the search field. If the URL contains an ID, also show the object with this ID."""
    text = visit.query.text("id")[:_ID_CHARACTERS_MAX]
    found = await visit.services.traces.find(visit.caller, text) if text else Trace()
    return visit.render(
        "operator/trace.html",
        200 if found.found or not text else 404,
        text=text,
        trace=found,
        rejected=None if found.found else await rejected_events.list_path(visit, text.strip()),
        events=[(ids.prefixed(ids.ACCOUNT, each.event.account_id), each, _why_not(each)) for each in found.events],
        others_shown=OTHERS_SHOWN,
        attempts_max=ATTEMPTS_MAX,
        outcomes=OUTCOMES,
        triggers=TRIGGERS,
        replay_waits=REPLAY_WAITS,
        delivery_id=lambda delivery: ids.delivery_id(delivery.event_id, delivery.endpoint_id),
    )


def _why_not(traced: TracedEvent) -> list[tuple[str, int]]:
    """Return the reasons why endpoints have no delivery for the event, with the number of endpoints for each reason."""
    return Counter(REASONS[each.why.reason].lower() for each in traced.others).most_common()


PAGES: Final = (operator_page("/trace", trace),)
