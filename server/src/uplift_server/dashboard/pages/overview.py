"""The overview: how an account fares, what is wrong, and what went out last."""

from typing import Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.dashboard.account_states import account_sentence
from uplift_server.dashboard.endpoint_states import StateCard, state_card
from uplift_server.dashboard.routes import account_page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.deliveries import DeliveryQuery
from uplift_server.service.endpoints import Shown
from uplift_server.service.means import Listing

LAST_SHOWN: Final = 10


async def overview(visit: Visit) -> Response:
    """The page."""
    services, caller = visit.services, visit.caller
    troubles = await services.troubles.of_account(caller)
    last = await services.deliveries.page(caller, DeliveryQuery(), Listing(LAST_SHOWN))
    kind, sentence = account_sentence(troubles)
    return visit.render(
        "overview/page.html",
        kind=kind,
        sentence=sentence,
        troubles=troubles,
        open_problems=[
            (ids.prefixed(ids.ENDPOINT, each.endpoint.id), each.endpoint, _card(visit, each)) for each in troubles.shown
        ],
        last=[
            (ids.delivery_id(each.delivery.event_id, each.delivery.endpoint_id), each.delivery) for each in last.items
        ],
        urls={live.seq: live.record.url for live in services.means.directory.endpoints_of(caller.one_account())},
    )


def _card(visit: Visit, shown: Shown) -> StateCard:
    assert visit.account is not None
    return state_card(
        shown,
        now=visit.services.means.now(),
        contacts=len(visit.account.contact_emails),
        sends_mail=visit.dashboard.sends_mail,
    )


PAGES: Final = (account_page("/overview", overview),)
