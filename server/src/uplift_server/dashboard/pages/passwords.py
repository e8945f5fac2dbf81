"""ProcessEvicted passwords: asking for a link by mail, and choosing another password with it."""

from typing import Any, Final

from starlette.responses import Response

from uplift_server.core.people.people import PASSWORD_CHARACTERS_MIN
from uplift_server.dashboard.routes import Door, Page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.errors import Invalid, RateLimited

_FORM: Final = "sign_in/password.html"
_ASK: Final = "sign_in/forgotten.html"
_PATH: Final = "/passwords/{token}"
_WORDS: Final[dict[str, Any]] = {
    "title": "New password",
    "button": "Set the password",
    "text": "Whoever is signed in with the old one is signed out.",
    "asks_name": False,
    "minimum": PASSWORD_CHARACTERS_MIN,
    "sets": True,
    "autocomplete": "new-password",
    "name": "",
}


async def ask_form(visit: Visit) -> Response:
    """Where a link is asked for."""
    return visit.render(_ASK)


async def ask(visit: Visit) -> Response:
    """Mail the link. The answer is the same whether there is such a person or not."""
    sent = await visit.form()
    try:
        await visit.services.sessions.request_reset(sent.text("email"), address=visit.address)
    except RateLimited as error:
        return visit.render(_ASK, 429, refusal=error.detail)
    return visit.leave("/sign-in", "If somebody signs in here with this address, the mail is on its way.")


async def form(visit: Visit) -> Response:
    """Where the new password is chosen. Whether the link is good shows when it is used, as nothing of it is kept."""
    return visit.render(_FORM, **_WORDS)


async def choose(visit: Visit) -> Response:
    """Set it, and begin a session."""
    sent = await visit.form()
    try:
        cookie = await visit.services.sessions.reset(
            visit.parameter("token"), sent.raw("password"), address=visit.address
        )
    except Invalid as error:
        return visit.refuse(_FORM, error.problems, **_WORDS)
    visit.sign_in(cookie)
    return visit.leave("/", "The password is changed, and all other sessions are ended.")


PAGES: Final = (
    Page("GET", "/forgotten", ask_form, Door.ANYBODY),
    Page("POST", "/forgotten", ask, Door.ANYBODY),
    Page("GET", _PATH, form, Door.ANYBODY),
    Page("POST", _PATH, choose, Door.ANYBODY),
)
