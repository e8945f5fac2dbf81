"""Sign-in with a password, an operator key or a one-time link, and sign-out."""

from typing import Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.dashboard.routes import Door, Page
from uplift_server.dashboard.security import SESSION_COOKIE
from uplift_server.dashboard.visit import Visit, own_path
from uplift_server.service.errors import NotFound, RateLimited, Unauthorized

FORM: Final = "sign_in/form.html"
"""The template of the sign-in form. If another sign-in method failed, the form also shows the reason."""
_OPERATOR: Final = "sign_in/operator.html"
_SIGNED_OUT: Final = "You are signed out."
_USED: Final = "This link was already used, or it has expired. Ask for a new link."


async def home(visit: Visit) -> Response:
    """Redirect to the visitor's home page."""
    return visit.leave("/sign-in" if visit.visitor is None else await _home(visit))


async def _home(visit: Visit) -> str:
    assert visit.visitor is not None
    if visit.visitor.person is None:
        return "/operator"
    if not visit.visitor.memberships:
        return "/you"
    account = ids.prefixed(ids.ACCOUNT, visit.visitor.memberships[0].account.id)
    caller = visit.visitor.caller(account, visit.address)
    page = "overview" if await visit.services.endpoints.is_in_use(caller) else "get-started"
    return f"/accounts/{account}/{page}"


async def form(visit: Visit) -> Response:
    """Show the sign-in form for members."""
    if visit.visitor is not None:
        return visit.leave(own_path(visit.query.text("next")))
    return visit.render(FORM, next=visit.query.text("next"), email="", has_no_access=False)


async def sign_in(visit: Visit) -> Response:
    """Sign in a member."""
    sent = await visit.form()
    email = sent.text("email")
    try:
        cookie = await visit.services.sessions.sign_in(email, sent.raw("password"), address=visit.address)
    except (Unauthorized, RateLimited) as error:
        status = 429 if isinstance(error, RateLimited) else 401
        return visit.render(
            FORM, status, refusal=error.detail, next=sent.text("next"), email=email, has_no_access=False
        )
    visit.sign_in(cookie)
    return visit.leave(own_path(sent.text("next")))


async def operator_form(visit: Visit) -> Response:
    """Show the sign-in form for operators."""
    return visit.render(_OPERATOR, next=visit.query.text("next"))


async def sign_in_operator(visit: Visit) -> Response:
    """Sign in an operator."""
    sent = await visit.form()
    try:
        cookie = await visit.services.sessions.sign_in_operator(
            sent.text("key"), address=visit.address, is_read_only=sent.flag("read_only")
        )
    except (Unauthorized, RateLimited) as error:
        status = 429 if isinstance(error, RateLimited) else 401
        return visit.render(_OPERATOR, status, refusal=error.detail, next=sent.text("next"))
    visit.sign_in(cookie)
    return visit.leave(own_path(sent.text("next")))


async def enter_form(visit: Visit) -> Response:
    """Show a confirmation page for a one-time link.

    Without this page, a program that opens all links in an email would use up the link.
    """
    if not await visit.services.sessions.can_open_link(visit.parameter("token")):
        if visit.visitor is not None:
            return visit.leave("/", problem=_USED)
        raise NotFound(_USED)
    return visit.render("sign_in/enter.html")


async def enter(visit: Visit) -> Response:
    """Sign in the visitor with the one-time link, which then becomes invalid."""
    cookie = await visit.services.sessions.open_link(visit.parameter("token"), address=visit.address)
    visit.sign_in(cookie)
    return visit.leave("/")


async def sign_out(visit: Visit) -> Response:
    """Sign out the visitor. If the visitor signed in at the identity provider, also sign the visitor out there."""
    url = await _provider_sign_out(visit)
    if visit.visitor is not None:
        await visit.services.sessions.sign_out(visit.visitor)
    visit.sign_out()
    if url is None:
        return visit.leave("/sign-in", _SIGNED_OUT)
    visit.notify(_SIGNED_OUT)
    return visit.render("sign_in/sign_out.html", url=url)


async def _provider_sign_out(visit: Visit) -> str | None:
    """Return the URL that signs the visitor out at the identity provider, or None if there is no such URL."""
    service, cookie = visit.services.single_sign_on, visit.cookie(SESSION_COOKIE)
    if service is None or visit.visitor is None or cookie is None:
        return None
    return await service.sign_out_url(visit.visitor, cookie, f"{visit.dashboard.public_url}/sign-in")


PAGES: Final = (
    Page("GET", "/", home, Door.ANYBODY),
    Page("GET", "/sign-in", form, Door.ANYBODY),
    Page("POST", "/sign-in", sign_in, Door.ANYBODY),
    Page("GET", "/sign-in/operator", operator_form, Door.ANYBODY),
    Page("POST", "/sign-in/operator", sign_in_operator, Door.ANYBODY),
    Page("GET", "/enter/{token}", enter_form, Door.ANYBODY),
    Page("POST", "/enter/{token}", enter, Door.ANYBODY),
    Page("POST", "/sign-out", sign_out, Door.ANYBODY, back="/"),
)
