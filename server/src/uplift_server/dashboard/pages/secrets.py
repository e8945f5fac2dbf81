"""The Security tab of an endpoint, on which a visitor reveals or rotates the secret, or expires the old secret."""

from typing import Any, Final

from starlette.responses import Response

from uplift_server.core.limits import SECRET_OVERLAP_SECONDS_DEFAULT, SECRET_OVERLAP_SECONDS_MAX
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.core.security.signing import standard_form
from uplift_server.dashboard.forms import Form, by_field, key_of
from uplift_server.dashboard.pages.endpoint import tab
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.security import SESSION_COOKIE
from uplift_server.dashboard.sign_in_again import NOT_SIGNED_IN
from uplift_server.dashboard.snippets import all_receivers, variable_line
from uplift_server.dashboard.visit import Visit
from uplift_server.service.errors import ConfirmationRequired, Forbidden, Invalid, RateLimited, Unauthorized
from uplift_server.service.secrets import RotationDraft

_PATH: Final = "/endpoints/{endpoint}/security"
_HOUR_S: Final = 3600
OVERLAPS: Final = (
    ("0", "None: the old secret expires immediately"),
    (str(_HOUR_S), "1 hour"),
    (str(SECRET_OVERLAP_SECONDS_DEFAULT), "24 hours"),
    (str(3 * SECRET_OVERLAP_SECONDS_DEFAULT), "3 days"),
    (str(SECRET_OVERLAP_SECONDS_MAX), "7 days"),
)
"""The choices for the period, in seconds, during which both secrets are valid."""
HEADERS: Final = (
    ("old", "Use the old secret until the overlap ends"),
    ("new", "Use the new secret immediately"),
)


async def security(visit: Visit) -> Response:
    """Show when the current secret became active and when the old secret, if any, expires.

    After the visitor chooses to reveal the secret, also show the secret.
    """
    return await _security(visit)


async def reveal(visit: Visit) -> Response:
    """Reveal the current secret.

    The visitor must have confirmed the password recently, or submit the password with the form.
    """
    form = await visit.form()
    try:
        if form.text("password"):
            await _confirm(visit, form.raw("password"))
        shown = await visit.services.secrets.reveal(visit.caller, visit.parameter("endpoint"))
    except (Unauthorized, RateLimited) as error:
        return await _security(visit, status=422, problems={"password": error.detail})
    except ConfirmationRequired:
        text = "Enter your password to reveal the secret."
        return await _security(visit, status=422, problems={"password": text})
    return _leave(visit, shown.secret)


async def rotate(visit: Visit) -> Response:
    """Rotate the secret, and redirect to the page that shows the new secret."""
    form = await visit.form()
    draft, problems = _rotation(form)
    try:
        shown = await visit.services.secrets.rotate(
            visit.caller,
            visit.parameter("endpoint"),
            draft,
            idempotency_key=key_of(form),
            problems=problems,
        )
    except Invalid as error:
        return await _security(visit, status=422, problems=by_field(error.problems), sent=form)
    return _leave(visit, shown.secret, "Secret rotated.")


async def expire_old(visit: Visit) -> Response:
    """Expire the old secret immediately."""
    endpoint = visit.parameter("endpoint")
    await visit.services.secrets.expire_old(visit.caller, endpoint)
    return visit.leave(
        visit.path("endpoints", endpoint, "security"),
        "Old secret expired. Only the current secret is active.",
    )


def _leave(visit: Visit, secret: str | None, notice: str | None = None) -> Response:
    endpoint = visit.parameter("endpoint")
    return visit.leave_with_secret(visit.path("endpoints", endpoint, "security"), endpoint, secret, notice)


async def _confirm(visit: Visit, password: str) -> None:
    """Check the visitor's password, and record the confirmation. Raises Unauthorized, RateLimited or Forbidden."""
    sessions = visit.services.sessions
    assert visit.visitor is not None, "the page requires a signed-in visitor"
    await sessions.confirm(visit.visitor, password, address=visit.address)
    visit.visitor = await sessions.visitor(visit.cookie(SESSION_COOKIE))
    if visit.visitor is None:
        raise Forbidden(NOT_SIGNED_IN)
    visit.enter(visit.parameter("account"))


def _rotation(form: Form) -> tuple[RotationDraft, list[Problem]]:
    problems: list[Problem] = []
    overlap_s = form.number("overlap_seconds", problems)
    if overlap_s is not None and overlap_s > SECRET_OVERLAP_SECONDS_MAX:
        problems.append(Problem("overlap_seconds", "out_of_range", "Choose an overlap of up to 7 days."))
    header = form.optional("uplift_header")
    if header is not None and header not in dict(HEADERS):
        problems.append(Problem("uplift_header", "wrong_value", "Choose the old secret or the new one."))
    return RotationDraft(form.optional("secret"), overlap_s, header), problems


async def _security(
    visit: Visit,
    *,
    status: int = 200,
    problems: dict[str, str] | None = None,
    sent: Form | None = None,
) -> Response:
    shown = await visit.services.endpoints.get(visit.caller, visit.parameter("endpoint"))
    now, principal = visit.services.context.now(), visit.caller.principal
    assert visit.visitor is not None, "the page requires a signed-in visitor"
    sent = Form() if sent is None else sent
    pair = shown.endpoint.secrets.at(now)
    secret = visit.shown_secret(visit.parameter("endpoint"), since=pair.created_at)
    context: dict[str, Any] = {
        "pair": pair,
        "secret": secret,
        "standard": None if secret is None else standard_form(secret.secret),
        "receivers": all_receivers(shown.endpoint.url),
        "variable": variable_line(None if secret is None else secret.secret),
        "reads": principal.allows(Scope.SECRETS_READ),
        "rotates": principal.allows(Scope.SECRETS_WRITE),
        "is_confirmed": visit.visitor.is_confirmed(now),
        "is_operator": visit.visitor.person is None,
        "has_password": visit.visitor.has_password,
        "overlaps": OVERLAPS,
        "overlap": sent.text("overlap_seconds") or str(SECRET_OVERLAP_SECONDS_DEFAULT),
        "headers": HEADERS,
        "header": sent.text("uplift_header") or "old",
        "own": sent.text("secret"),
        "problems": problems or {},
    }
    return await tab(visit, "security", shown=shown, status=status, **context)


PAGES: Final = (
    account_page(_PATH, security),
    account_form(f"{_PATH}/reveal", reveal, back=_PATH),
    account_form(f"{_PATH}/rotate", rotate, back=_PATH),
    account_form(f"{_PATH}/expire-old", expire_old, back=_PATH),
)
