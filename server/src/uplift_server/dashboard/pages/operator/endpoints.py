"""The page on which operators search, disable and enable the endpoints of any account."""

from typing import Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.limits import HELD_COUNTED_MAX
from uplift_server.dashboard import words
from uplift_server.dashboard.pages.operator.volumes import volume
from uplift_server.dashboard.routes import operator_form, operator_page
from uplift_server.dashboard.visit import Visit, link
from uplift_server.service.operator_lists import EndpointOrder, EndpointSearch, EndpointStatus, EndpointSummary
from uplift_server.store.records import EndpointState, HeldAction

_SEARCH_CHARACTERS_MAX: Final = 200
TITLES: Final = {
    None: "All",
    EndpointStatus.FAILING: "Failing",
    EndpointStatus.WARNED: "Warned",
    EndpointStatus.DISABLED: "Disabled",
    EndpointStatus.PAUSED: "Paused",
    EndpointStatus.HELD: "With held deliveries",
    EndpointStatus.AT_LIMIT: "At their limit",
}
HELD: Final = (
    ("send", "Send held deliveries"),
    ("drop", "Drop held deliveries"),
    ("keep", "Keep held deliveries"),
)
ORDERS: Final = (
    (EndpointOrder.SINCE, "Longest failing"),
    (EndpointOrder.PENDING, "Most pending deliveries"),
    (EndpointOrder.OLDEST, "Oldest due delivery"),
)
_REASONS: Final = {"failing": "failing for too long", "gone": "responded with 410", "operator": "by an operator"}


async def listed(visit: Visit) -> Response:
    """List the endpoints that match the filter and the search in the URL."""
    query = visit.query
    asked, order = query.text("filter"), query.text("sort")
    wanted = next((each for each in EndpointStatus if each == asked), None)
    text = query.text("search")[:_SEARCH_CHARACTERS_MAX]
    search = EndpointSearch(
        wanted,
        text,
        query.optional("account"),
        query.optional("cause") if wanted is EndpointStatus.FAILING else None,
        next((each for each in EndpointOrder if each == order), EndpointOrder.SINCE),
    )
    roll = await visit.services.operator_lists.endpoints(visit.caller, search, visit.listing())
    shown = [(ids.prefixed(ids.ENDPOINT, each.endpoint.id), each) for each in roll.page.items]
    series = await visit.services.statistics.of_endpoints(visit.caller, [endpoint for endpoint, _ in shown])
    rows = [
        (endpoint, ids.prefixed(ids.ACCOUNT, each.account.id), each, *_state(each), volume(series[endpoint]))
        for endpoint, each in shown
    ]
    kept = {"search": text or None, "account": search.account}
    sort = None if search.order is EndpointOrder.SINCE else search.order

    def cause_link(code: str) -> str:
        return link("/operator/endpoints", filter=wanted, cause=code, sort=sort, **kept)

    causes = roll.causes if wanted is EndpointStatus.FAILING else []
    return visit.render(
        "operator/endpoints.html",
        wanted=wanted,
        search=text,
        account=search.account,
        accounts=[(ids.prefixed(ids.ACCOUNT, each.id), each.name, count) for each, count in roll.accounts],
        order=search.order,
        orders=ORDERS,
        cause=search.cause,
        all_causes=link("/operator/endpoints", filter=wanted, sort=sort, **kept),
        tabs=[
            (title, link("/operator/endpoints", filter=each, **kept), each, roll.counts[each])
            for each, title in TITLES.items()
        ],
        # The filter Failing shows one section for each cause. The other filters show a single section.
        parts=[
            (cause, count, cause_link(cause.code), [row for row in rows if row[2].cause == cause])
            for cause, count in causes
            if search.cause in (None, cause.code)
        ]
        if wanted is EndpointStatus.FAILING
        else [(None, len(rows), None, rows)],
        has_rows=bool(rows),
        held_max=HELD_COUNTED_MAX,
        held_choices=HELD,
        next=visit.cursor(roll.page.next_key),
    )


async def switch_off(visit: Visit) -> Response:
    """Disable an endpoint. Operators and the account's members can enable the endpoint again."""
    endpoint = visit.parameter("endpoint")
    await visit.services.endpoint_states.disable(visit.caller, endpoint)
    return visit.leave(
        link("/operator/endpoints", search=endpoint), "Endpoint disabled. The server holds its deliveries."
    )


async def switch_on(visit: Visit) -> Response:
    """Enable an endpoint. The form field `held` selects whether to send, drop or keep the held deliveries."""
    endpoint = visit.parameter("endpoint")
    asked = (await visit.form()).text("held")
    held = next((each for each in HeldAction if each.text == asked), HeldAction.KEEP)
    await visit.services.endpoint_states.enable(visit.caller, endpoint, held)
    return visit.leave(link("/operator/endpoints", search=endpoint), "Endpoint enabled.")


def _state(listed: EndpointSummary) -> tuple[str, str | None]:
    """Return the state of an endpoint and the reason for the state, both as text."""
    record, health = listed.endpoint, listed.health
    if record.state is EndpointState.DISABLED:
        reason = None if record.disabled_reason is None else _REASONS[record.disabled_reason.text]
        return "disabled", reason
    if record.state is EndpointState.PAUSED:
        return "paused", "by the account"
    if health.failing_since is not None:
        return health.status, _failures(health.consecutive_failures)
    return health.status, None


def _failures(number: int) -> str:
    return "1 failure" if number == 1 else f"{words.count(number)} failures"


PAGES: Final = (
    operator_page("/endpoints", listed),
    operator_form("/endpoints/{endpoint}/disable", switch_off, back="/endpoints?search={endpoint}"),
    operator_form("/endpoints/{endpoint}/enable", switch_on, back="/endpoints?search={endpoint}"),
)
