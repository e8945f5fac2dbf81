"""The second factor: the code at sign-in, and the page where a person turns the second factor on or off."""

from io import BytesIO
from typing import Any, Final

import segno
from markupsafe import Markup
from starlette.responses import Response

from uplift_server.core.security.totp import app_uri, key_text
from uplift_server.dashboard.encrypted_cookies import EncryptedCookies
from uplift_server.dashboard.pending_sign_ins import CODE_PATH, forget_pending, read_pending
from uplift_server.dashboard.routes import Door, Page
from uplift_server.dashboard.visit import Visit, own_path
from uplift_server.service.errors import Invalid, NotFound, RateLimited, Unauthorized
from uplift_server.service.visitors import Visitor

_PATH: Final = "/you/second-factor"
_PAGE: Final = "you/second_factor.html"
_CODE: Final = "sign_in/code.html"
_CODES: Final = "recovery-codes"
"""The `ShownSecret.subject` in the cookie that stores new recovery codes until the page shows them."""
_PURPOSE: Final = b"key of an authenticator app"
_SVG_SCALE: Final = 5
_EXPIRED: Final = "Your session changed, so the page shows a new QR code. Scan it, and enter the new code."


async def code_form(visit: Visit) -> Response:
    """Show the form that asks for the second-factor code. The visitor has already entered the password."""
    if read_pending(visit) is None:
        return visit.leave("/sign-in")
    return visit.render(_CODE, next=visit.query.text("next"))


async def enter_code(visit: Visit) -> Response:
    """Check the second-factor code and complete the sign-in."""
    sent = await visit.form()
    wanted = sent.text("next")
    try:
        cookie = await visit.services.sessions.enter_code(read_pending(visit), sent.text("code"), address=visit.address)
    except (Unauthorized, RateLimited) as error:
        status = 429 if isinstance(error, RateLimited) else 401
        return visit.render(_CODE, status, refusal=error.detail, next=wanted)
    except NotFound as error:
        forget_pending(visit)
        return visit.leave("/sign-in", problem=error.detail)
    forget_pending(visit)
    visit.sign_in(cookie)
    return visit.leave(own_path(wanted))


async def page(visit: Visit) -> Response:
    """Show whether the second factor is on. If the second factor is off, show how to turn it on."""
    return await _page(visit)


async def turn_on(visit: Visit) -> Response:
    """Turn on the second factor, and show the recovery codes."""
    visitor, sent, service = _visitor(visit), await visit.form(), visit.services.second_factor
    key = _cookies(visit).decrypt(sent.text("app"), visitor.session_id)
    if key is None:
        return visit.leave(_PATH, problem=_EXPIRED)
    try:
        codes = await service.turn_on(visitor, key, sent.text("code"), sent.raw("password"), address=visit.address)
    except Invalid as error:
        return await _page(visit, key, error)
    return visit.leave_with_secret(_PATH, _CODES, "\n".join(codes), "Your second factor is on.")


async def turn_off(visit: Visit) -> Response:
    """Turn off the second factor."""
    visitor, sent, service = _visitor(visit), await visit.form(), visit.services.second_factor
    try:
        await service.turn_off(visitor, sent.text("code"), sent.raw("password"), address=visit.address)
    except Invalid as error:
        return await _page(visit, invalid=error)
    return visit.leave("/you", "Your second factor is off.")


async def new_recovery_codes(visit: Visit) -> Response:
    """Replace the recovery codes, and show the new ones."""
    visitor, sent, service = _visitor(visit), await visit.form(), visit.services.second_factor
    try:
        codes = await service.new_recovery_codes(
            visitor, sent.text("code"), sent.raw("password"), address=visit.address
        )
    except Invalid as error:
        return await _page(visit, invalid=error)
    return visit.leave_with_secret(_PATH, _CODES, "\n".join(codes), "New recovery codes created.")


async def _page(visit: Visit, key: bytes | None = None, invalid: Invalid | None = None) -> Response:
    """Show whether the second factor is on.

    If the second factor is off, show a key: the key that the person is setting up, or a new key.
    """
    visitor = _visitor(visit)
    assert visitor.person is not None
    email = visitor.person.email
    assert email is not None
    state = await visit.services.second_factor.state(visitor.person)
    context: dict[str, Any] = {"state": state, "person": visitor.person, "codes": visit.shown_secret(_CODES)}
    if state is None:
        key = key or visit.services.second_factor.new_secret()
        uri = app_uri(key, email=email, issuer=visit.dashboard.brand.name)
        context |= {
            "app": _cookies(visit).encrypt(key, visitor.session_id),
            "key": key_text(key),
            "picture": _picture(uri),
        }
    if invalid is not None:
        return visit.refuse(_PAGE, invalid.problems, **context)
    return visit.render(_PAGE, **context)


def _picture(uri: str) -> Markup:
    """Return the QR code as SVG. Because of its white margin, apps can read the code on a dark page."""
    target = BytesIO()
    segno.make(uri, error="m", micro=False).save(
        target, kind="svg", scale=_SVG_SCALE, light="#fff", xmldecl=False, svgns=False
    )
    return Markup(target.getvalue().decode())  # noqa: S704 - the QR code encodes the text as squares


def _visitor(visit: Visit) -> Visitor:
    """Return the visitor. Raises NotFound for operators, and for visitors without an email address."""
    assert visit.visitor is not None
    if visit.visitor.person is None or visit.visitor.person.email is None:
        raise NotFound("Only members with an email address have a second factor. Sign in as a member.")
    return visit.visitor


def _cookies(visit: Visit) -> EncryptedCookies:
    """Return the cipher that encrypts the authenticator key during the setup. The form contains the encrypted key."""
    return EncryptedCookies(visit.dashboard.safety.key, _PURPOSE)


PAGES: Final = (
    Page("GET", CODE_PATH, code_form, Door.ANYBODY),
    Page("POST", CODE_PATH, enter_code, Door.ANYBODY),
    Page("GET", _PATH, page, Door.VISITOR),
    Page("POST", _PATH, turn_on, Door.VISITOR),
    Page("POST", f"{_PATH}/off", turn_off, Door.VISITOR, back=_PATH),
    Page("POST", f"{_PATH}/recovery-codes", new_recovery_codes, Door.VISITOR, back=_PATH),
)
