"""The page that shows an invitation, and the form that accepts the invitation."""

from typing import Any, Final

from starlette.responses import Response

from uplift_server.core.people.people import PASSWORD_CHARACTERS_MIN
from uplift_server.dashboard.routes import Door, Page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.credentials import OpenInvitation
from uplift_server.service.errors import Invalid, NotFound, RateLimited, Unauthorized

_FORM: Final = "sign_in/password.html"
_PATH: Final = "/invitations/{token}"


async def form(visit: Visit) -> Response:
    """Show an invitation. If the invitation is not valid, redirect signed-in visitors to the home page."""
    try:
        found = await _invitation(visit)
    except NotFound as error:
        if visit.visitor is None:
            raise
        return visit.leave("/", problem=error.detail)
    return visit.render(_FORM, **_words(visit, found))


async def accept(visit: Visit) -> Response:
    """Accept an invitation."""
    found = await _invitation(visit)
    sent = await visit.form()
    words = _words(visit, found, sent.text("name"))
    try:
        cookie = await visit.services.sessions.accept_invitation(
            visit.parameter("token"), sent.text("name"), sent.raw("password"), address=visit.address
        )
    except Invalid as error:
        return visit.refuse(_FORM, error.problems, **words)
    except (Unauthorized, RateLimited) as error:
        return visit.render(_FORM, 429 if isinstance(error, RateLimited) else 401, refusal=error.detail, **words)
    visit.sign_in(cookie)
    return visit.leave("/", f"Welcome to {found.account_name}.")


async def _invitation(visit: Visit) -> OpenInvitation:
    found = await visit.services.sessions.invitation(visit.parameter("token"))
    if found is None:
        raise NotFound("This invitation was accepted or withdrawn, or it has expired. Ask for a new invitation.")
    return found


def _words(visit: Visit, found: OpenInvitation, name: str = "") -> dict[str, Any]:
    text = f"{found.invited_by} invited you ({found.email}) to this account with the role {found.role.text}."
    if found.has_password:
        text += " Enter your password."
    elif found.has_password is None:
        text += " If you already have a password, enter it. Otherwise, choose one."
    return {
        "title": f"Join {found.account_name}",
        "button": "Accept invitation",
        "text": text,
        "asks_name": not found.has_password,
        "minimum": PASSWORD_CHARACTERS_MIN,
        "sets": not found.has_password,
        "autocomplete": "new-password" if found.has_password is False else "current-password",
        "name": name,
        "offers_single_sign_on": visit.services.single_sign_on is not None,
    }


PAGES: Final = (Page("GET", _PATH, form, Door.ANYBODY), Page("POST", _PATH, accept, Door.ANYBODY))
