"""Sign-in for a form that a visitor submits after the session has ended.

The sign-in page keeps the form's values, and submits the form after the sign-in.
"""

from typing import Final

from starlette.responses import Response

from uplift_server.core.http.headers import MASKED
from uplift_server.dashboard.forms import Form
from uplift_server.dashboard.pending_sign_ins import forget_pending, keep_pending, read_pending
from uplift_server.dashboard.security import CSRF_FIELD
from uplift_server.dashboard.visit import Visit
from uplift_server.service.errors import Busy, Forbidden, NotFound, RateLimited, Unauthorized
from uplift_server.service.second_factors import SecondFactorRequired

NOT_SIGNED_IN: Final = "Your session has expired. Sign in and try again."
_PREFIX: Final = "sign_in."
_NOT_KEPT: Final = frozenset({CSRF_FIELD, "password", "present", "key", "code"})
"""Fields that the sign-in page does not keep, such as passwords and the token of the previous session."""
_SECRET: Final = {
    "secret": "Custom secret",
    "headers": "Custom headers",
    "client_secret": "Client secret",
    "private_key": "Private key",
}
"""Fields that can contain secrets, with their labels. The sign-in page asks for the values of these fields again."""
_STATUS: Final = {Unauthorized: 401, RateLimited: 429, Busy: 503}
_ENTER_AGAIN: Final = "Enter the secret values again. This page does not keep them."
_NO_SESSION: Final = "You are not signed in yet. Open a new sign-in link in another tab first."


async def sign_in(visit: Visit, *, as_operator: bool) -> Response | None:
    """Return the page that asks a visitor without a session to sign in, or None after a successful sign-in.

    Raises Forbidden unless the browser reports that a page of this dashboard sent the form.
    """
    if not visit.proves_origin:
        raise Forbidden(NOT_SIGNED_IN)
    sent = await visit.form(session_ended=True)
    if not visit.is_own_token(sent.text(f"{_PREFIX}{CSRF_FIELD}")):
        return _page(visit, 401, as_operator)
    if sent.flag(f"{_PREFIX}link"):
        return _page(visit, 401, as_operator, _NO_SESSION)
    cookie = await _begin(visit, sent, as_operator=as_operator)
    if isinstance(cookie, Response):
        return cookie
    visit.sign_in(cookie)
    visit.visitor = await visit.services.sessions.visitor(cookie)
    if visit.visitor is None:
        return _page(visit, 401, as_operator, NOT_SIGNED_IN)
    if any(not sent.text(name) for name in _asked_again(sent)):
        return _page(visit, 403, as_operator, _ENTER_AGAIN)
    visit.use_form(sent.without(_PREFIX))
    return None


async def _begin(visit: Visit, sent: Form, *, as_operator: bool) -> str | Response:
    """Sign in the visitor, and return the session cookie. After a failed sign-in, return the sign-in page again."""
    asks_code = sent.flag(f"{_PREFIX}enters_code")
    try:
        cookie = await _session(visit, sent, as_operator=as_operator)
    except SecondFactorRequired as error:
        keep_pending(visit, error.pending)
        return _page(visit, 401, as_operator, asks_code=True)
    except NotFound as error:
        return _page(visit, 401, as_operator, error.detail)
    except (Unauthorized, RateLimited, Busy) as error:
        return _page(visit, _STATUS[type(error)], as_operator, error.detail, asks_code=asks_code)
    forget_pending(visit)
    return cookie


async def _session(visit: Visit, sent: Form, *, as_operator: bool) -> str:
    """Sign in the visitor, and return the session cookie.

    Raises Unauthorized, SecondFactorRequired, NotFound, RateLimited or Busy.
    """
    sessions, key = visit.services.sessions, sent.text(f"{_PREFIX}key")
    if sent.flag(f"{_PREFIX}enters_code"):
        return await sessions.enter_code(read_pending(visit), sent.text(f"{_PREFIX}code"), address=visit.address)
    if as_operator or key:
        return await sessions.sign_in_operator(key, address=visit.address)
    email, password = sent.text(f"{_PREFIX}email"), sent.raw(f"{_PREFIX}password")
    return await sessions.sign_in(email, password, address=visit.address)


def confirm_session(visit: Visit) -> Response:
    """Return the page that asks a visitor to confirm the form, because another tab changed the session."""
    return _page(visit, 403, as_operator=False)


def _page(
    visit: Visit, status: int, as_operator: bool, refusal: str | None = None, *, asks_code: bool = False
) -> Response:
    sent = visit.sent_form.without(_PREFIX).as_sent()
    again = _asked_again(visit.sent_form)
    kept = [
        (name, value)
        for name, values in sent.items()
        if name not in _NOT_KEPT and name not in again
        for value in values
    ]
    return visit.render(
        "sign_in/again.html",
        status,
        kept=kept,
        again=again,
        email=visit.sent_form.text(f"{_PREFIX}email"),
        as_operator=as_operator,
        asks_code=asks_code,
        refusal=refusal,
        prefix=_PREFIX,
    )


def _asked_again(sent: Form) -> dict[str, str]:
    """Return the submitted fields that can contain secrets, with their labels."""
    return {name: label for name, label in _SECRET.items() if sent.flag(f"{_PREFIX}{name}") or _has_secret(sent, name)}


def _has_secret(sent: Form, name: str) -> bool:
    return any(not line.endswith(MASKED) for line in sent.lines(name))
