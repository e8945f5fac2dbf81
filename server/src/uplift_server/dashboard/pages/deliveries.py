"""Delivery page: the delivery's attempts and status, and the actions Resend and Cancel."""

from typing import Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.lifecycle import OPEN, Status, Trigger
from uplift_server.core.limits import BLOCKED_COUNTED_MAX
from uplift_server.core.security.scopes import Scope
from uplift_server.dashboard import words
from uplift_server.dashboard.exchanges import Told, curl, told
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.visit import PART, Visit, link
from uplift_server.service.waiting_reasons import ShownDelivery
from uplift_server.store.records import Endpoint, EndpointState

_IN_FLIGHT: Final = "An attempt is in flight. Wait for its outcome before you resend the delivery."
_BLOCKED: Final = "You cannot resend this delivery yet: to keep the order, it waits for another delivery."


async def shown(visit: Visit) -> Response:
    """Show a delivery with its attempts."""
    services, caller = visit.services, visit.caller
    found = await services.deliveries.get(caller, visit.parameter("delivery"))
    delivery = found.delivery
    _, page = await services.deliveries.attempts(caller, visit.parameter("delivery"), visit.listing())
    attempts = [told(each) for each in page.items]
    cursor = visit.query.optional("cursor")
    newest = cursor is None
    last = attempts[0] if attempts and newest else None
    why = await services.explanations.of_delivery(caller, found, None if last is None else last.attempt)
    event = await services.events.get(caller, ids.uuid_text(delivery.event_id))
    body = event.body
    whole = not visit.query.flag(PART)
    by_id = {each.id: each for each in services.endpoints.all(caller)}
    endpoint = by_id.get(delivery.endpoint_id)
    blocked = await services.deliveries.count_blocked(caller, delivery)
    may_write = caller.principal.allows(Scope.DELIVERIES_WRITE)
    return visit.render(
        "deliveries/delivery.html",
        delivery=delivery,
        waiting=found.waiting,
        waits=words.WAITS,
        why=why,
        blocked=_blocked_text(blocked),
        event=event,
        endpoint=endpoint,
        attempts=attempts,
        newest=newest,
        next=visit.cursor(page.next_key),
        may_write=may_write,
        may_cancel=may_write and delivery.status in OPEN,
        no_resend=_no_resend(found, endpoint, last, visit.services.context.now()),
        body=body.decode() if whole and body is not None else None,
        command=curl(last.attempt, endpoint.url, body) if whole and body is not None and last and endpoint else None,
        live=link(visit.path("deliveries", visit.parameter("delivery")), cursor=cursor, **{PART: "live"}),
    )


async def resend(visit: Visit) -> Response:
    """Resend a delivery."""
    delivery = visit.parameter("delivery")
    await visit.services.deliveries.resend(visit.caller, delivery)
    return visit.leave(visit.path("deliveries", delivery), "Resend started.")


async def cancel(visit: Visit) -> Response:
    """Cancel a delivery."""
    delivery = visit.parameter("delivery")
    _, is_cancelled = await visit.services.deliveries.cancel(visit.caller, delivery)
    said = "Delivery cancelled." if is_cancelled else "Cancellation requested. A worker will cancel the delivery."
    return visit.leave(visit.path("deliveries", delivery), said)


def _blocked_text(count: int) -> str | None:
    """Return text with the number of deliveries that wait for this delivery, or None if no delivery waits.

    Deliveries wait for each other only if the endpoint is ordered.
    """
    if count < 2:
        return "1 delivery waits" if count else None
    return f"{count:,}{' or more' if count == BLOCKED_COUNTED_MAX else ''} deliveries wait"


def _no_resend(found: ShownDelivery, endpoint: Endpoint | None, last: Told | None, now: int) -> str | None:
    """Return the reason why the visitor cannot resend the delivery, or None if the visitor can resend it.

    The service repeats these checks when the visitor resends the delivery.
    """
    delivery = found.delivery
    if endpoint is None:
        return "You cannot resend this delivery, because its endpoint was deleted."
    if last is not None and last.attempt.trigger is Trigger.TEST:
        return "You cannot resend a test event. Send another test event from the endpoint's page."
    has_expired = delivery.expires_at is not None and delivery.expires_at <= now
    if has_expired or delivery.erased_at is not None:
        cause = "has expired" if has_expired else "was erased"
        return f"You cannot resend this delivery, because the event {cause}."
    if endpoint.state is not EndpointState.ENABLED:
        return f"The endpoint is {endpoint.state.text}. Enable the endpoint to resend this delivery."
    is_in_flight = delivery.status is Status.PENDING and found.waiting is None
    if is_in_flight or delivery.is_blocked:
        return _IN_FLIGHT if is_in_flight else _BLOCKED
    return None


PAGES: Final = (
    account_page("/deliveries/{delivery}", shown),
    account_form("/deliveries/{delivery}/resend", resend, back="/deliveries/{delivery}"),
    account_form("/deliveries/{delivery}/cancel", cancel, back="/deliveries/{delivery}"),
)
