"""Sign-in in place of a form whose session has ended. The page keeps the filled form, and submits it afterward."""

from typing import Final

from starlette.responses import Response

from uplift_server.dashboard.security import CSRF_FIELD
from uplift_server.dashboard.visit import Visit
from uplift_server.service.errors import Busy, Forbidden, RateLimited, Unauthorized

NOT_SIGNED_IN: Final = "Your session has expired. Sign in and try again."
_PREFIX: Final = "sign_in."
_NOT_KEPT: Final = frozenset({CSRF_FIELD, "password", "present", "key"})
"""Fields that the page does not contain: passwords, and the token of the previous session."""
_NO_SESSION: Final = "You are not signed in yet. Open a new sign-in link in another tab first."


async def sign_in(visit: Visit, *, as_operator: bool) -> Response | None:
    """Return the page that asks a visitor without a session to sign in, or None after a successful sign-in.

    Raises Forbidden for a form that may come from another site.
    """
    if not visit.proves_origin:
        raise Forbidden(NOT_SIGNED_IN)
    sent = await visit.form(is_large=True)
    if not visit.is_own_token(sent.text(f"{_PREFIX}{CSRF_FIELD}")):
        return _page(visit, 401, as_operator)
    if sent.flag(f"{_PREFIX}link"):
        return _page(visit, 401, as_operator, _NO_SESSION)
    sessions, key, email = visit.services.sessions, sent.text(f"{_PREFIX}key"), sent.text(f"{_PREFIX}email")
    try:
        if as_operator or key:
            cookie = await sessions.sign_in_operator(key, address=visit.address)
        else:
            cookie = await sessions.sign_in(email, sent.raw(f"{_PREFIX}password"), address=visit.address)
    except Unauthorized as error:
        return _page(visit, 401, as_operator, error.detail)
    except (RateLimited, Busy) as error:
        return _page(visit, 429 if isinstance(error, RateLimited) else 503, as_operator, error.detail)
    visit.sign_in(cookie)
    visit.visitor = await sessions.visitor(cookie)
    visit.use_form(sent.without(_PREFIX))
    return None if visit.visitor is not None else _page(visit, 401, as_operator, NOT_SIGNED_IN)


def confirm_session(visit: Visit) -> Response:
    """Return the page that asks a visitor whose session changed in another tab to continue."""
    return _page(visit, 403, as_operator=False)


def _page(visit: Visit, status: int, as_operator: bool, refusal: str | None = None) -> Response:
    sent = visit.sent_form.without(_PREFIX).as_sent()
    kept = [(name, value) for name, values in sent.items() if name not in _NOT_KEPT for value in values]
    email = visit.sent_form.text(f"{_PREFIX}email")
    return visit.render(
        "sign_in/again.html", status, kept=kept, email=email, as_operator=as_operator, refusal=refusal, prefix=_PREFIX
    )
