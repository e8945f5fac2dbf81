"""One field for any id: from it to what became of it, whosever it is."""

from collections import Counter
from typing import Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.dashboard.routes import operator_page
from uplift_server.dashboard.visit import Visit
from uplift_server.dashboard.words import OUTCOMES, REASONS, REPLAY_WAITS, TRIGGERS
from uplift_server.service.traces import ATTEMPTS_MAX, Trace, TracedEvent

_ID_CHARACTERS_MAX: Final = 300
OTHERS_SHOWN: Final = 20
"""Of the endpoints that an event was not for."""


async def trace(visit: Visit) -> Response:
    """The field, and what was found."""
    text = visit.query.text("id")[:_ID_CHARACTERS_MAX]
    found = await visit.services.traces.find(visit.caller, text) if text else Trace()
    return visit.render(
        "operator/trace.html",
        200 if found.found or not text else 404,
        text=text,
        trace=found,
        events=[(ids.prefixed(ids.ACCOUNT, each.event.account_id), each, _why_not(each)) for each in found.events],
        others_shown=OTHERS_SHOWN,
        attempts_max=ATTEMPTS_MAX,
        outcomes=OUTCOMES,
        triggers=TRIGGERS,
        replay_waits=REPLAY_WAITS,
        delivery_id=lambda delivery: ids.delivery_id(delivery.event_id, delivery.endpoint_id),
    )


def _why_not(traced: TracedEvent) -> list[tuple[str, int]]:
    """For which reasons an event was not for how many endpoints."""
    return Counter(REASONS[each.why.reason].lower() for each in traced.others).most_common()


PAGES: Final = (operator_page("/trace", trace),)
