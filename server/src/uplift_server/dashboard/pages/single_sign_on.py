"""Single sign-on: the redirect to the identity provider, and the sign-in after the provider's response."""

from typing import Final

import msgspec
from starlette.responses import RedirectResponse, Response

from uplift_server.core.security.oidc import CALLBACK_PATH, TRANSACTION_MS
from uplift_server.dashboard.encrypted_cookies import EncryptedCookies
from uplift_server.dashboard.pages.sign_in import FORM
from uplift_server.dashboard.routes import Door, Page
from uplift_server.dashboard.visit import Visit, own_path
from uplift_server.service.errors import Busy, Forbidden, NotFound, RateLimited, Unauthorized
from uplift_server.service.single_sign_on import AuthorizationResponse, SignInTransaction, SingleSignOn

TRANSACTION_COOKIE: Final = "uplift_transaction"
"""The cookie that stores the state of a sign-in while the visitor is at the identity provider."""
_PURPOSE: Final = b"single sign-on"
_PATH_CHARACTERS_MAX: Final = 1_000
"""Maximum number of characters in the path to which the server redirects after the sign-in. A cookie contains the
path, and browsers accept cookies of up to 4 KiB."""
_STATUS: Final = {Unauthorized: 401, Forbidden: 403, RateLimited: 429, Busy: 503}


async def begin(visit: Visit) -> Response:
    """Redirect to the identity provider.

    Open this page with a link, not with a form. After a form submission, Content-Security-Policy would limit the hosts
    to which the identity provider can redirect.
    """
    wanted = own_path(visit.query.text("next"))
    page = wanted if len(wanted) <= _PATH_CHARACTERS_MAX else "/"
    try:
        url, transaction = await _service(visit).begin(page, again=visit.query.flag("again"))
    except Busy as error:
        return _refuse(visit, error, page)
    cookie = _cookies(visit).encrypt(msgspec.json.encode(transaction))
    visit.set_cookie(TRANSACTION_COOKIE, cookie, seconds=TRANSACTION_MS // 1000)
    return visit.finish(RedirectResponse(url, 303))


async def finish(visit: Visit) -> Response:
    """Sign in the visitor when the identity provider redirects the browser back."""
    service, transaction, query = _service(visit), _transaction(visit), visit.query
    page = "/" if transaction is None else own_path(transaction.next)
    visit.set_cookie(TRANSACTION_COOKIE, "", seconds=0)
    response = AuthorizationResponse(
        query.text("state"), query.optional("code"), query.optional("error"), query.optional("iss")
    )
    try:
        cookie = await service.complete(transaction, response, address=visit.address)
    except (Unauthorized, Forbidden, RateLimited, Busy) as error:
        return _refuse(visit, error, page)
    if visit.visitor is not None:
        await visit.services.sessions.sign_out(visit.visitor)
    visit.sign_in(cookie)
    return visit.leave(page)


def _refuse(visit: Visit, error: Unauthorized | Forbidden | RateLimited | Busy, page: str) -> Response:
    """Show the reason why the sign-in failed. A visitor without a session also sees the other ways to sign in.

    For a person without access, one of these ways is to sign in as another person. Otherwise, the provider would
    identify the same person again.
    """
    if visit.visitor is not None:
        return visit.leave(page, problem=error.detail)
    return visit.render(
        FORM,
        _STATUS[type(error)],
        refusal=error.detail,
        next=page,
        email="",
        has_no_access=isinstance(error, Forbidden),
    )


def _transaction(visit: Visit) -> SignInTransaction | None:
    cookie = visit.cookie(TRANSACTION_COOKIE)
    content = None if cookie is None else _cookies(visit).decrypt(cookie)
    return None if content is None else msgspec.json.decode(content, type=SignInTransaction)


def _cookies(visit: Visit) -> EncryptedCookies:
    return EncryptedCookies(visit.dashboard.safety.key, _PURPOSE)


def _service(visit: Visit) -> SingleSignOn:
    """Return the single sign-on service. Raises NotFound if no identity provider is configured."""
    if visit.services.single_sign_on is None:
        raise NotFound("Single sign-on is not configured. Sign in with a password.")
    return visit.services.single_sign_on


PAGES: Final = (
    Page("GET", "/sign-in/oidc", begin, Door.ANYBODY),
    Page("GET", CALLBACK_PATH, finish, Door.ANYBODY),
)
