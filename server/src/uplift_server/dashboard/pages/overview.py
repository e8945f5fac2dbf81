"""Account overview: health, open problems, statistics and latest deliveries."""

from typing import Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.lifecycle import Status
from uplift_server.core.operations.statistics import Period, Statistics
from uplift_server.core.security.rights import Right
from uplift_server.dashboard.account_states import account_sentence
from uplift_server.dashboard.endpoint_states import problem_card, summary
from uplift_server.dashboard.figures import PERIODS, status_columns, status_words
from uplift_server.dashboard.routes import account_page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.context import Listing
from uplift_server.service.delivery_queries import DeliveryQuery
from uplift_server.service.endpoints import ShownEndpoint

CARDS_SHOWN: Final = 5
"""Maximum number of endpoints that the page shows as problem cards. Table rows show other endpoints with problems."""
LAST_SHOWN: Final = 10
SPANS: Final = {period: f"last {title}" for period, title in PERIODS.items()}
"""The periods for which the page shows statistics, with their titles."""


async def overview(visit: Visit) -> Response:
    """Show the overview of an account."""
    services, caller = visit.services, visit.caller
    period = next((each for each in SPANS if each.value == visit.query.text("period")), Period.LAST_24_HOURS)
    series = await services.statistics.of_account(caller, period)
    troubles = await services.endpoint_problems.of_account(caller)
    status = next((each for each in Status if each.text == visit.query.text("status")), None)
    listing = Listing(LAST_SHOWN, visit.query.optional("cursor"))
    last = await services.deliveries.page(caller, DeliveryQuery([] if status is None else [status.text]), listing)
    now = services.context.now()
    kind, sentence = account_sentence(troubles, series.totals, SPANS[period], now=now)
    return visit.render(
        "overview/page.html",
        period=period,
        spans=SPANS,
        since=series.buckets[0].at,
        numbers=series.totals,
        delivered=_delivered_share(series.totals),
        became=status_words(series.totals),
        columns=status_columns(series),
        now=now,
        kind=kind,
        sentence=sentence,
        troubles=troubles,
        cards=[(_id(each), each.endpoint, problem_card(each, now=now)) for each in troubles.shown[:CARDS_SHOWN]],
        tests=caller.principal.has_right(Right.ENDPOINTS_TEST),
        others=[(_id(each), each.endpoint, summary(each)) for each in troubles.shown[CARDS_SHOWN:]],
        statuses=[each.text for each in Status],
        wanted="" if status is None else status.text,
        next=visit.cursor(last.next_key),
        last=[
            (ids.delivery_id(each.delivery.event_id, each.delivery.endpoint_id), each.delivery) for each in last.items
        ],
        endpoints={each.id: each for each in services.endpoints.all(caller)},
    )


def _id(shown: ShownEndpoint) -> str:
    return ids.prefixed(ids.ENDPOINT, shown.endpoint.id)


def _delivered_share(numbers: Statistics) -> float | None:
    """Return the share of delivered deliveries among the delivered and failed deliveries, from 0 to 1.

    Return None if there are no such deliveries.
    """
    over = numbers.delivered + numbers.failed
    return numbers.delivered / over if over else None


PAGES: Final = (account_page("/overview", overview),)
