"""Event catalog: the list of event types, and the page of one event type."""

from itertools import groupby
from typing import Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import Right
from uplift_server.dashboard import words
from uplift_server.dashboard.forms import by_field
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.schemas import tree
from uplift_server.dashboard.visit import Visit, link
from uplift_server.service.endpoint_tests import EndpointTest
from uplift_server.service.errors import Busy, Conflict, Invalid, NotFound, RateLimited

SUBSCRIBED_SHOWN: Final = 50
_TYPE: Final = "catalog/type.html"


async def listed(visit: Visit) -> Response:
    """List the event types by group. The URL parameter `q` filters the event types by name and description."""
    wanted = visit.query.text("q")
    found = [
        each
        for each in visit.services.event_types.all()
        if wanted.lower() in f"{each.name}\n{each.description}".lower()
    ]
    groups = [(name, list(types)) for name, types in groupby(found, lambda each: each.group)]
    return visit.render("catalog/list.html", groups=groups, wanted=wanted)


async def shown(visit: Visit) -> Response:
    """Show one event type with its schema, example and subscribed endpoints."""
    return _page(visit, chosen=visit.query.text("endpoint"))


async def send_test(visit: Visit) -> Response:
    """Send a test event of this type to an endpoint, and redirect to the page of the delivery."""
    type_name, endpoint = visit.parameter("type"), (await visit.form()).text("endpoint")
    visit.services.event_types.get(type_name)
    try:
        trial = await visit.services.endpoint_tests.send(visit.caller, endpoint, type_name)
    except NotFound:
        problem = Problem("endpoint", "endpoint_unknown", "Select an endpoint in this account.")
        return _page(visit, 422, chosen=endpoint, problems=by_field([problem]))
    except Invalid as error:
        return _page(visit, 422, chosen=endpoint, problems=by_field(error.problems))
    except (Conflict, RateLimited, Busy) as error:
        return visit.leave(link(visit.path("catalog", type_name), endpoint=endpoint), problem=error.detail)
    delivery = ids.delivery_id(trial.delivery.event_id, trial.delivery.endpoint_id)
    return visit.leave(visit.path("deliveries", delivery), _told(trial))


def _told(trial: EndpointTest) -> str:
    if trial.attempt is None:
        return "Test event in flight. The endpoint has not responded yet."
    outcome = words.OUTCOMES[trial.attempt.outcome]
    return f"Test event sent. Outcome: {outcome}."


def _page(
    visit: Visit,
    status: int = 200,
    *,
    chosen: str,
    problems: dict[str, str] | None = None,
) -> Response:
    event_type = visit.services.event_types.get(visit.parameter("type"))
    subscribed = visit.services.endpoints.subscribed(visit.caller, event_type.name)
    may_test = event_type.archived_at is None and visit.caller.principal.has_right(Right.ENDPOINTS_TEST)
    return visit.render(
        _TYPE,
        status,
        event_type=event_type,
        tree=None if event_type.schema is None else tree(event_type.schema),
        subscribed=subscribed[:SUBSCRIBED_SHOWN],
        subscribed_count=len(subscribed),
        endpoints=visit.services.endpoints.all(visit.caller) if may_test else [],
        may_test=may_test,
        chosen=chosen,
        problems=problems or {},
    )


PAGES: Final = (
    account_page("/catalog", listed),
    account_page("/catalog/{type}", shown),
    account_form("/catalog/{type}/test", send_test, back="/catalog/{type}"),
)
