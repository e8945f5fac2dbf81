"""Email outbox: the emails, their states and their last errors."""

from typing import Final

from starlette.responses import Response

from uplift_server.core.people.notifications import NotificationState
from uplift_server.dashboard.routes import operator_page
from uplift_server.dashboard.visit import Visit, link

TITLES: Final = {
    None: "All",
    NotificationState.WAITING: "Waiting",
    NotificationState.SENT: "Sent",
    NotificationState.GIVEN_UP: "Failed",
}
SHOWN_AS: Final = {
    NotificationState.WAITING: ("pending", "waiting"),
    NotificationState.SENT: ("delivered", "sent"),
    NotificationState.GIVEN_UP: ("failed", "failed"),
}


async def outbox(visit: Visit) -> Response:
    """List the emails."""
    asked = visit.query.text("state")
    wanted = next((each for each in NotificationState if each == asked), None)
    page = await visit.services.operator_lists.emails(visit.caller, wanted, visit.listing())
    known = visit.services.context.cache.accounts_by_id
    return visit.render(
        "operator/outbox.html",
        wanted=wanted,
        tabs=[(title, link("/operator/mail", state=each), each) for each, title in TITLES.items()],
        mails=page.items,
        names={each.account_id: known[each.account_id].name for each in page.items if each.account_id in known},
        shown_as=SHOWN_AS,
        next=visit.cursor(page.next_key),
    )


PAGES: Final = (operator_page("/mail", outbox),)
