"""Get started: the checklist from the first endpoint to the first 2xx response."""

from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.deliveries.causes import Explanation, explain
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.security.scopes import Scope
from uplift_server.dashboard.forms import key_of
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.snippets import FRAMEWORKS, receiver, variable_line
from uplift_server.dashboard.visit import Visit, link
from uplift_server.service.context import Listing
from uplift_server.service.delivery_queries import DeliveryQuery
from uplift_server.service.endpoints import EndpointDraft, ShownEndpoint
from uplift_server.service.errors import Busy, ConfirmationRequired, Conflict, Invalid, RateLimited
from uplift_server.service.waiting_reasons import ShownDelivery
from uplift_server.store.records import Attempt

ENDPOINTS_OFFERED: Final = 25
_PAGE: Final = "get_started/page.html"
_PATH: Final = "get-started"


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress with one endpoint."""

    endpoint: str
    """The ID of the endpoint."""
    shown: ShownEndpoint
    last: ShownDelivery | None
    """The latest delivery, including test deliveries."""
    attempt: Attempt | None
    """The latest attempt of that delivery."""
    answered: bool
    """Whether the endpoint ever responded with 2xx."""

    @property
    def last_id(self) -> str:
        """The ID of the latest delivery."""
        assert self.last is not None
        return ids.delivery_id(self.last.delivery.event_id, self.last.delivery.endpoint_id)

    @property
    def tried(self) -> bool:
        """Whether the server made at least one attempt."""
        return self.answered or self.attempt is not None

    @property
    def hint(self) -> Explanation | None:
        """The cause of the latest failure and how to fix it, or None."""
        found = self.attempt
        if found is None or found.outcome is Outcome.DELIVERED:
            return None
        return explain(found.outcome, status_code=found.status_code, error=found.error, location=found.location)


async def page(visit: Visit) -> Response:
    """Show the checklist."""
    return await _page(visit, visit.query.text("endpoint"), visit.query.text("framework"))


async def register(visit: Visit) -> Response:
    """Create an endpoint with this URL and redirect to its secret."""
    sent = await visit.form()
    framework, url = sent.text("framework"), sent.text("url")
    try:
        made = await visit.services.endpoints.create(visit.caller, EndpointDraft(url=url), idempotency_key=key_of(sent))
    except Invalid as error:
        return await _page(visit, "", framework, invalid=error, url=url)
    except Conflict as error:
        return await _page(visit, "", framework, status=409, refusal=error.detail, url=url)
    endpoint = ids.prefixed(ids.ENDPOINT, made.endpoint.id)
    return visit.leave_with_secret(_at(visit, endpoint, framework), endpoint, made.secret)


async def show_secret(visit: Visit) -> Response:
    """Reveal the secret of an endpoint on this page."""
    sent = await visit.form()
    endpoint, framework = sent.text("endpoint"), sent.text("framework")
    try:
        shown = await visit.services.secrets.reveal(visit.caller, endpoint)
    except ConfirmationRequired:
        return visit.leave(link("/confirm", next=_at(visit, endpoint, framework)))
    return visit.leave_with_secret(_at(visit, endpoint, framework), endpoint, shown.secret)


async def test(visit: Visit) -> Response:
    """Send a test event and show its outcome."""
    sent = await visit.form()
    endpoint, framework = sent.text("endpoint"), sent.text("framework")
    try:
        trial = await visit.services.endpoint_tests.send(visit.caller, endpoint, None)
    except Invalid as error:
        return visit.leave(_at(visit, endpoint, framework), problem=error.problems[0].message)
    except (Conflict, Busy, RateLimited) as error:
        return visit.leave(_at(visit, endpoint, framework), problem=error.detail)
    return visit.leave(_at(visit, endpoint, framework), _told(trial.attempt))


def _told(attempt: Attempt | None) -> str:
    if attempt is None:
        return "Test event in flight. Its outcome appears here."
    if attempt.outcome is Outcome.DELIVERED:
        return f"Test event delivered. Your server responded with {attempt.status_code}."
    return "Test event failed. See the cause below."


async def _page(
    visit: Visit,
    endpoint: str,
    framework: str,
    *,
    status: int = 200,
    invalid: Invalid | None = None,
    refusal: str | None = None,
    url: str = "https://",
) -> Response:
    owned = await visit.services.endpoints.page(visit.caller, Listing(ENDPOINTS_OFFERED))
    names = {ids.prefixed(ids.ENDPOINT, each.endpoint.id): each.endpoint.url for each in owned.items}
    chosen = await visit.services.endpoints.get(visit.caller, endpoint) if endpoint else next(iter(owned.items), None)
    progress = None if chosen is None else await _progress(visit, chosen)
    framework = framework if framework in FRAMEWORKS else next(iter(FRAMEWORKS))
    secret = None
    if progress is not None:
        active_since = progress.shown.endpoint.secrets.at(visit.services.context.now()).created_at
        secret = visit.shown_secret(progress.endpoint, since=active_since)
    context: dict[str, Any] = {
        "progress": progress,
        "names": names,
        "url": url,
        "secret": secret,
        "variable": variable_line(None if secret is None else secret.secret),
        "framework": framework,
        "frameworks": FRAMEWORKS,
        "receiver": receiver(framework),
        "here": _at(visit, None if progress is None else progress.endpoint, framework),
        "listening": await _listening(visit),
    }
    if invalid is not None:
        return visit.refuse(_PAGE, invalid.problems, **context)
    return visit.render(_PAGE, status, refusal=refusal, **context)


async def _progress(visit: Visit, shown: ShownEndpoint) -> Progress:
    endpoint = ids.prefixed(ids.ENDPOINT, shown.endpoint.id)
    deliveries = visit.services.deliveries
    newest = await deliveries.page_of_endpoint(visit.caller, endpoint, DeliveryQuery(), Listing(1))
    last = newest.items[0] if newest.items else None
    attempt = None
    answered = shown.endpoint.last_success_at is not None
    if last is not None:
        delivery_id = ids.delivery_id(last.delivery.event_id, last.delivery.endpoint_id)
        _, attempts = await deliveries.attempts(visit.caller, delivery_id, Listing(1))
        attempt = attempts.items[0] if attempts.items else None
    if not answered:
        taken = await deliveries.page_of_endpoint(
            visit.caller, endpoint, DeliveryQuery([Status.DELIVERED.text]), Listing(1)
        )
        answered = bool(taken.items)
    return Progress(endpoint, shown, last, attempt, answered)


async def _listening(visit: Visit) -> int | None:
    """Return the number of connected listen sessions, or None if the visitor cannot view them."""
    if not visit.caller.principal.allows(Scope.LISTEN):
        return None
    found = await visit.services.listening.page(visit.caller, Listing(ENDPOINTS_OFFERED))
    return sum(each.connected for each in found.items)


def _at(visit: Visit, endpoint: str | None, framework: str) -> str:
    return link(visit.path(_PATH), endpoint=endpoint or None, framework=framework)


PAGES: Final = (
    account_page(f"/{_PATH}", page),
    account_form(f"/{_PATH}/endpoint", register, back=f"/{_PATH}"),
    account_form(f"/{_PATH}/secret", show_secret, back=f"/{_PATH}"),
    account_form(f"/{_PATH}/test", test, back=f"/{_PATH}"),
)
