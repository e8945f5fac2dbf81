"""Get started: the checklist from the first endpoint to verified signatures."""

from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.deliveries.causes import Explanation, explain_attempt
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.deliveries.signature_checks import Result, Verdict, verdict
from uplift_server.core.security.scopes import Scope
from uplift_server.dashboard.forms import key_of
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.snippets import EXTRAS, FRAMEWORKS, receiver, variable_line
from uplift_server.dashboard.visit import Visit, link
from uplift_server.service.context import Listing
from uplift_server.service.delivery_queries import DeliveryQuery
from uplift_server.service.endpoint_drafts import EndpointDraft
from uplift_server.service.endpoint_tests import result_of
from uplift_server.service.endpoints import ShownEndpoint
from uplift_server.service.errors import Busy, ConfirmationRequired, Conflict, Invalid, NotFound, RateLimited
from uplift_server.store.records import Attempt, Delivery

ENDPOINTS_OFFERED: Final = 25
_PAGE: Final = "get_started/page.html"
_PATH: Final = "get-started"
_TESTS: Final = ("tested", "wrong", "valid")
"""The URL parameters that contain the IDs of test deliveries, whose results the page shows again after a reload."""


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    """A delivery with its latest attempt."""

    delivery: Delivery
    attempt: Attempt | None

    @property
    def id(self) -> str:
        """The ID of the delivery."""
        return ids.delivery_id(self.delivery.event_id, self.delivery.endpoint_id)

    @property
    def is_delivered(self) -> bool:
        """Whether the endpoint accepted the delivery."""
        return self.attempt is not None and self.attempt.outcome is Outcome.DELIVERED

    @property
    def result(self) -> Result | None:
        """The result of the attempt, for the verdict on the signature check."""
        return result_of(self.attempt)

    @property
    def hint(self) -> Explanation | None:
        """The cause of the failure and how to fix it, or None if the attempt did not fail."""
        found = self.attempt
        if found is None:
            return None
        return explain_attempt(found)


@dataclass(frozen=True, slots=True)
class Progress:
    """An endpoint's progress through the checklist."""

    endpoint: str
    """The ID of the endpoint."""
    shown: ShownEndpoint
    event: ShownAttempt | None
    """The latest delivery that is not a test delivery, such as the delivery of the registration event."""
    test: ShownAttempt | None
    """The latest test delivery from this page or, if there is none, the latest test delivery to the endpoint."""
    wrong: ShownAttempt | None
    """The delivery with the wrong signature in the latest signature check on this page."""
    valid: ShownAttempt | None
    """The delivery with the valid signature in the latest signature check on this page."""

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the latest signature check on this page, or None if there was no check."""
        if self.wrong is None:
            return None
        return verdict(self.wrong.result, None if self.valid is None else self.valid.result)

    @property
    def is_tested(self) -> bool:
        """Whether the receiver at the endpoint's current URL accepted the latest test event.

        If retention has deleted this event, assume that the receiver accepted it.
        """
        if self.test is None:
            return self.shown.endpoint.tested_at is not None
        return self.test.is_delivered

    @property
    def is_verified(self) -> bool:
        """Whether the receiver at the current URL rejected the wrong signature and accepted the valid signature."""
        return self.shown.endpoint.verified_at is not None


async def page(visit: Visit) -> Response:
    """Show the Get started checklist."""
    return await _page(visit, visit.query.text("endpoint"), visit.query.text("framework"))


async def register(visit: Visit) -> Response:
    """Create an endpoint with the URL in the form, and redirect to the page that shows its secret."""
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
    """Reveal the secret of an endpoint, and show it on this page."""
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
    except (Invalid, Conflict, Busy, RateLimited) as error:
        return visit.leave(_at(visit, endpoint, framework), problem=_reason(error))
    tested = ShownAttempt(trial.delivery, trial.attempt)
    page = _at(visit, endpoint, framework, tested=tested.id)
    if trial.attempt is not None and not tested.is_delivered:
        return visit.leave(page, problem="Test event failed. See the cause below.")
    return visit.leave(page, _told(trial.attempt))


async def verify(visit: Visit) -> Response:
    """Send two test deliveries, one with a wrong signature and one with a valid signature. Show both responses."""
    sent = await visit.form()
    endpoint, framework = sent.text("endpoint"), sent.text("framework")
    try:
        check = await visit.services.endpoint_tests.verify(visit.caller, endpoint)
    except (Invalid, Conflict, Busy, RateLimited) as error:
        return visit.leave(_at(visit, endpoint, framework), problem=_reason(error))
    tests = {"wrong": check.wrong, "valid": check.valid}
    shown = {name: ShownAttempt(test.delivery, test.attempt).id for name, test in tests.items() if test is not None}
    page = f"{_at(visit, endpoint, framework, **shown)}#step-4"
    if check.verified_at:
        return visit.leave(page, "Endpoint verified.")
    return visit.leave(page, problem="Endpoint not verified. See the cause below.")


def _reason(error: Invalid | Conflict | Busy | RateLimited) -> str:
    return error.problems[0].message if isinstance(error, Invalid) else error.detail


def _told(attempt: Attempt | None) -> str:
    if attempt is None:
        return "Test event in flight. Its outcome appears here."
    return f"Test event delivered. Your server responded with {attempt.status_code}."


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
        "extras": EXTRAS,
        "receiver": receiver(framework, None if progress is None else progress.shown.endpoint.url),
        "here": _at(
            visit,
            None if progress is None else progress.endpoint,
            framework,
            **{name: text for name in _TESTS if (text := visit.query.text(name))},
        ),
        "listening": await _listening(visit),
    }
    if invalid is not None:
        return visit.refuse(_PAGE, invalid.problems, **context)
    return visit.render(_PAGE, status, refusal=refusal, **context)


async def _progress(visit: Visit, shown: ShownEndpoint) -> Progress:
    endpoint = ids.prefixed(ids.ENDPOINT, shown.endpoint.id)
    newest = await visit.services.deliveries.page_of_endpoint(
        visit.caller, endpoint, DeliveryQuery(test=False), Listing(1)
    )
    event = None
    if newest.items:
        delivery = newest.items[0].delivery
        event = await _attempt(visit, ids.delivery_id(delivery.event_id, delivery.endpoint_id), shown)
    test, wrong, valid = [await _attempt(visit, visit.query.text(name), shown) for name in _TESTS]
    return Progress(endpoint, shown, event, test or await _last_test(visit, endpoint, shown), wrong, valid)


async def _last_test(visit: Visit, endpoint: str, shown: ShownEndpoint) -> ShownAttempt | None:
    """Return the latest test delivery of the endpoint, or None if there is none or retention has deleted it."""
    at = shown.endpoint.tested_at
    if at is None:
        return None
    query = DeliveryQuery(created_after=at - 1, created_before=at + 1, test=True)
    found = await visit.services.deliveries.page_of_endpoint(visit.caller, endpoint, query, Listing(1))
    tests = [each.delivery for each in found.items]
    return await _attempt(visit, ids.delivery_id(tests[0].event_id, tests[0].endpoint_id), shown) if tests else None


async def _attempt(visit: Visit, delivery: str, shown: ShownEndpoint) -> ShownAttempt | None:
    """Return a delivery with its latest attempt, or None if the endpoint has no such delivery."""
    if not delivery:
        return None
    try:
        found, attempts = await visit.services.deliveries.attempts(visit.caller, delivery, Listing(1))
    except NotFound:
        return None
    if found.endpoint_id != shown.endpoint.id:
        return None
    return ShownAttempt(found, attempts.items[0] if attempts.items else None)


async def _listening(visit: Visit) -> int | None:
    """Return the number of connected listen sessions, or None if the visitor cannot view them."""
    if not visit.caller.principal.allows(Scope.LISTEN):
        return None
    found = await visit.services.listening.page(visit.caller, Listing(ENDPOINTS_OFFERED))
    return sum(each.connected for each in found.items)


def _at(visit: Visit, endpoint: str | None, framework: str, **deliveries: str) -> str:
    return link(visit.path(_PATH), endpoint=endpoint or None, framework=framework, **deliveries)


PAGES: Final = (
    account_page(f"/{_PATH}", page),
    account_form(f"/{_PATH}/endpoint", register, back=f"/{_PATH}"),
    account_form(f"/{_PATH}/secret", show_secret, back=f"/{_PATH}"),
    account_form(f"/{_PATH}/test", test, back=f"/{_PATH}"),
    account_form(f"/{_PATH}/verify", verify, back=f"/{_PATH}"),
)
