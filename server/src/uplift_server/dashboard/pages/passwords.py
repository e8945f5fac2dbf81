"""Pages on which a person requests a password reset link by email, and sets a new password."""

from typing import Any, Final

from starlette.responses import Response

from uplift_server.core.people.people import PASSWORD_CHARACTERS_MIN
from uplift_server.dashboard.routes import Door, Page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.errors import Invalid, RateLimited

_FORM: Final = "sign_in/password.html"
_SENT: Final = "If a member with this address has a password, the server emails a password reset link."
_ASK: Final = "sign_in/forgotten.html"
_PATH: Final = "/passwords/{token}"
_WORDS: Final[dict[str, Any]] = {
    "title": "New password",
    "button": "Set password",
    "text": "Setting a new password signs you out of all sessions.",
    "asks_name": False,
    "minimum": PASSWORD_CHARACTERS_MIN,
    "sets": True,
    "autocomplete": "new-password",
    "name": "",
    "offers_single_sign_on": False,
}


async def ask_form(visit: Visit) -> Response:
    """Show the form that requests a password reset link."""
    return visit.render(_ASK)


async def ask(visit: Visit) -> Response:
    """Email the password reset link. The response does not reveal whether a member with this email address exists."""
    sent = await visit.form()
    try:
        await visit.services.sessions.request_reset(sent.text("email"), address=visit.address)
    except RateLimited as error:
        return visit.render(_ASK, 429, refusal=error.detail)
    return visit.leave("/sign-in", _SENT)


async def form(visit: Visit) -> Response:
    """Show the form that sets a new password. The server validates the link when the person submits the form."""
    return visit.render(_FORM, **_WORDS)


async def choose(visit: Visit) -> Response:
    """Set the new password and sign the person in."""
    sent = await visit.form()
    try:
        cookie = await visit.services.sessions.reset(
            visit.parameter("token"), sent.raw("password"), address=visit.address
        )
    except Invalid as error:
        return visit.refuse(_FORM, error.problems, **_WORDS)
    visit.sign_in(cookie)
    return visit.leave("/", "Password changed. You are signed out of your other sessions.")


PAGES: Final = (
    Page("GET", "/forgotten", ask_form, Door.ANYBODY),
    Page("POST", "/forgotten", ask, Door.ANYBODY),
    Page("GET", _PATH, form, Door.ANYBODY),
    Page("POST", _PATH, choose, Door.ANYBODY),
)
