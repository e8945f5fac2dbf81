"""Endpoints of everybody: found by how they stand, and switched off and on by operators."""

from typing import Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.limits import HELD_COUNTED_MAX
from uplift_server.dashboard import words
from uplift_server.dashboard.pages.operator.volumes import volume
from uplift_server.dashboard.routes import operator_form, operator_page
from uplift_server.dashboard.visit import Visit, link
from uplift_server.service.operator_lists import EndpointStatus, EndpointSummary
from uplift_server.store.records import EndpointState, HeldAction

_SEARCH_CHARACTERS_MAX: Final = 200
TITLES: Final = {
    None: "All",
    EndpointStatus.FAILING: "Failing",
    EndpointStatus.WARNED: "Warned",
    EndpointStatus.DISABLED: "Disabled",
    EndpointStatus.PAUSED: "Paused",
    EndpointStatus.HELD: "Holding deliveries",
}
HELD: Final = (
    ("send", "Send what is held"),
    ("drop", "Drop what is held"),
    ("keep", "Keep it held"),
)
_REASONS: Final = {"failing": "failed for too long", "gone": "answered 410", "operator": "by an operator"}


async def listed(visit: Visit) -> Response:
    """Those behind a filter and a search of the URL."""
    asked = visit.query.text("filter")
    wanted = next((each for each in EndpointStatus if each == asked), None)
    search = visit.query.text("search")[:_SEARCH_CHARACTERS_MAX]
    roll = await visit.services.operator_lists.endpoints(visit.caller, wanted, search, visit.listing())
    shown = [(ids.prefixed(ids.ENDPOINT, each.endpoint.id), each) for each in roll.page.items]
    series = await visit.services.statistics.of_endpoints(visit.caller, [endpoint for endpoint, _ in shown])
    return visit.render(
        "operator/endpoints.html",
        wanted=wanted,
        search=search,
        tabs=[
            (title, link("/operator/endpoints", filter=each, search=search or None), each, roll.counts[each])
            for each, title in TITLES.items()
        ],
        rows=[
            (endpoint, ids.prefixed(ids.ACCOUNT, each.account.id), each, *_state(each), volume(series[endpoint]))
            for endpoint, each in shown
        ],
        held_max=HELD_COUNTED_MAX,
        held_choices=HELD,
        next=visit.cursor(roll.page.next_key),
    )


async def switch_off(visit: Visit) -> Response:
    """Disable an endpoint as the operator; only operators, or its owner, enable it again."""
    endpoint = visit.parameter("endpoint")
    await visit.services.endpoint_states.disable(visit.caller, endpoint)
    return visit.leave(
        link("/operator/endpoints", search=endpoint), "The endpoint is disabled, and what comes for it is held."
    )


async def switch_on(visit: Visit) -> Response:
    """Enable it, and say what becomes of what it holds."""
    endpoint = visit.parameter("endpoint")
    asked = (await visit.form()).text("held")
    held = next((each for each in HeldAction if each.text == asked), HeldAction.KEEP)
    await visit.services.endpoint_states.enable(visit.caller, endpoint, held)
    return visit.leave(link("/operator/endpoints", search=endpoint), "The endpoint is enabled.")


def _state(listed: EndpointSummary) -> tuple[str, str | None]:
    """How it stands, in one word, and why or since when that is."""
    record, health = listed.endpoint, listed.health
    if record.state is EndpointState.DISABLED:
        reason = None if record.disabled_reason is None else _REASONS[record.disabled_reason.text]
        return "disabled", reason
    if record.state is EndpointState.PAUSED:
        return "paused", "by its owner"
    if health.failing_since is not None:
        return health.status, f"{words.count(health.consecutive_failures)} in a row"
    return health.status, None


PAGES: Final = (
    operator_page("/endpoints", listed),
    operator_form("/endpoints/{endpoint}/disable", switch_off),
    operator_form("/endpoints/{endpoint}/enable", switch_on),
)
