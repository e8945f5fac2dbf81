"""The Test tab of an endpoint, which sends a test event and shows its result."""

from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.problems import Problem
from uplift_server.dashboard.exchanges import Told, told
from uplift_server.dashboard.forms import by_field, key_of
from uplift_server.dashboard.pages.endpoint import tab, type_names
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.visit import Visit, link
from uplift_server.service.context import Listing
from uplift_server.service.errors import Busy, Conflict, Invalid, NotFound, RateLimited
from uplift_server.store.records import Delivery


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a test event."""

    delivery: Delivery
    told: Told | None
    """The attempt, or None until the server has completed an attempt."""
    body: bytes
    """The body of the test request."""

    @property
    def kind(self) -> str:
        """The status of the test delivery. The status determines the symbol and the color on the page."""
        if self.told is None:
            return "pending" if self.delivery.leased else "failed"
        return self.told.status


async def show(visit: Visit) -> Response:
    """Show the form. If the URL contains the ID of a test delivery, also show the result of this delivery."""
    return await _trial(visit, type_name=visit.query.text("type"), delivery=visit.query.optional("delivery"))


async def send(visit: Visit) -> Response:
    """Send a test event and redirect to its result."""
    form = await visit.form()
    endpoint, type_name = visit.parameter("endpoint"), form.optional("type")
    try:
        sent = await visit.services.endpoint_tests.send(visit.caller, endpoint, type_name, idempotency_key=key_of(form))
    except Invalid as error:
        return await _trial(visit, type_name=type_name or "", status=422, problems=error.problems)
    except (Conflict, Busy, RateLimited) as error:
        return visit.leave(link(visit.path("endpoints", endpoint, "test"), type=type_name), problem=error.detail)
    delivery = ids.delivery_id(sent.delivery.event_id, sent.delivery.endpoint_id)
    return visit.leave(link(visit.path("endpoints", endpoint, "test"), delivery=delivery, type=type_name))


async def _trial(
    visit: Visit,
    *,
    type_name: str,
    delivery: str | None = None,
    status: int = 200,
    problems: tuple[Problem, ...] = (),
) -> Response:
    context: dict[str, Any] = {
        "result": None if delivery is None else await _result(visit, delivery),
        "types": [("", "Any subscribed event type"), *((name, name) for name in type_names(visit))],
        "type_name": type_name,
        "problems": by_field(problems),
    }
    return await tab(visit, "test", status=status, **context)


async def _result(visit: Visit, delivery: str) -> Result:
    """Return the result of a test delivery. Raises NotFound if the endpoint has no such delivery."""
    services, caller = visit.services, visit.caller
    found, page = await services.deliveries.attempts(caller, delivery, Listing(1))
    if found.endpoint_id != ids.parse_prefixed(ids.ENDPOINT, visit.parameter("endpoint")):
        raise NotFound(f"This endpoint has no test delivery {delivery[:100]}. Send another test event.")
    event = await services.events.get(caller, ids.uuid_text(found.event_id))
    return Result(found, told(page.items[0]) if page.items else None, event.body or b"")


PAGES: Final = (
    account_page("/endpoints/{endpoint}/test", show),
    account_form("/endpoints/{endpoint}/test", send),
)
