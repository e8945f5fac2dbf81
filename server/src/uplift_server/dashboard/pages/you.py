"""The profile page of the signed-in person: name, password, sessions and accounts.

The module also contains the form that asks for the password before the dashboard reveals secrets.
"""

from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.people.people import PASSWORD_CHARACTERS_MIN
from uplift_server.core.problems import Problem
from uplift_server.dashboard.routes import Door, Page
from uplift_server.dashboard.visit import Visit, link, own_path
from uplift_server.service.errors import (
    ConfirmationRequired,
    Conflict,
    Invalid,
    NotFound,
    RateLimited,
    Unauthorized,
)
from uplift_server.service.visitors import Visitor

_PATH: Final = "/you"
_PAGE: Final = "you/page.html"
_CONFIRM: Final = "you/confirm.html"


async def page(visit: Visit) -> Response:
    """Show the profile."""
    return await _page(visit)


async def rename(visit: Visit) -> Response:
    """Update the person's name."""
    visitor, sent = _visitor(visit), await visit.form()
    try:
        await visit.services.sessions.rename(visitor, sent.text("name"), address=visit.address)
    except Invalid as error:
        return await _page(visit, error, name=sent.text("name"))
    return visit.leave(_PATH, "Name changed.")


async def change_password(visit: Visit) -> Response:
    """Set or change the person's password, and end the person's other sessions."""
    visitor, sent = _visitor(visit), await visit.form()
    sessions, present, password = visit.services.sessions, sent.raw("present"), sent.raw("password")
    try:
        await sessions.change_password(visitor, present, password, address=visit.address)
    except ConfirmationRequired:
        return visit.leave(link("/confirm", next=_PATH))
    except Invalid as error:
        return await _page(visit, error)
    except Unauthorized:
        problem = Problem("present", "password_wrong", "The current password is not correct. Enter it again.")
        return await _page(visit, Invalid([problem]))
    return visit.leave(_PATH, "Password changed. You are signed out of your other sessions.")


async def unlink(visit: Visit) -> Response:
    """Unlink the person's single sign-on identity."""
    service = visit.services.single_sign_on
    if service is None:
        raise Conflict("Single sign-on is not configured on this server, so there is no identity to unlink.")
    await service.unlink(_visitor(visit), address=visit.address)
    return visit.leave(_PATH, "Identity unlinked. The next single sign-on with your email address links it again.")


async def leave(visit: Visit) -> Response:
    """Remove the visitor from an account."""
    visitor, sent = _visitor(visit), await visit.form()
    account = sent.text("account")
    caller = visitor.caller(account, visit.address)
    await visit.services.members.remove(caller, account, caller.actor.id or "")
    return visit.leave("/", "You left the account.")


async def sign_out_everywhere(visit: Visit) -> Response:
    """End all sessions of the person, including the current session."""
    assert visit.visitor is not None
    await visit.services.sessions.sign_out_everywhere(visit.visitor)
    visit.sign_out()
    return visit.leave("/sign-in", "You are signed out everywhere.")


async def hide_secret(visit: Visit) -> Response:
    """Hide the one-time secret that the page shows."""
    visit.hide_secret()
    return visit.leave(own_path((await visit.form()).text("next")))


async def confirm_form(visit: Visit) -> Response:
    """Show the form that asks for the password."""
    return _confirm(visit, visit.query.text("next"))


async def confirm(visit: Visit) -> Response:
    """Check the password, and redirect to the page that requires the password."""
    sent = await visit.form()
    assert visit.visitor is not None
    wanted = sent.text("next")
    if not sent.raw("password") and visit.visitor.is_confirmed(visit.services.context.now()):
        # The visitor has just signed in again, so no password is needed here.
        return visit.leave(own_path(wanted))
    try:
        await visit.services.sessions.confirm(visit.visitor, sent.raw("password"), address=visit.address)
    except Unauthorized as error:
        return _confirm(visit, wanted, 401, error.detail)
    except RateLimited as error:
        return _confirm(visit, wanted, 429, error.detail)
    return visit.leave(own_path(wanted), "Identity confirmed for 10 minutes.")


def _confirm(visit: Visit, wanted: str, status: int = 200, refusal: str | None = None) -> Response:
    return visit.render(_CONFIRM, status, next=own_path(wanted), refusal=refusal)


async def _page(
    visit: Visit,
    invalid: Invalid | None = None,
    *,
    name: str | None = None,
) -> Response:
    visitor, service = _visitor(visit), visit.services.single_sign_on
    assert visitor.person is not None
    context: dict[str, Any] = {
        "person": visitor.person,
        "name": visitor.person.name if name is None else name,
        "is_confirmed": visitor.is_confirmed(visit.services.context.now()),
        "accounts": [(ids.prefixed(ids.ACCOUNT, each.account.id), each) for each in visitor.memberships],
        "has_single_sign_on": service is not None,
        "is_linked": service is not None and await service.is_linked(visitor.person),
        "second_factor": await visit.services.second_factor.state(visitor.person),
        "shortest": PASSWORD_CHARACTERS_MIN,
    }
    if invalid is not None:
        return visit.refuse(_PAGE, invalid.problems, **context)
    return visit.render(_PAGE, **context)


def _visitor(visit: Visit) -> Visitor:
    """Return the visitor. Raises NotFound for operators."""
    assert visit.visitor is not None
    if visit.visitor.person is None:
        raise NotFound("Operators have no profile. They sign in with the operator key or single sign-on.")
    return visit.visitor


PAGES: Final = (
    Page("GET", _PATH, page, Door.VISITOR),
    Page("POST", "/you/name", rename, Door.VISITOR, back=_PATH),
    Page("POST", "/you/password", change_password, Door.VISITOR, back=_PATH),
    Page("POST", "/you/unlink", unlink, Door.VISITOR, back=_PATH),
    Page("POST", "/you/leave", leave, Door.VISITOR, back=_PATH),
    Page("POST", "/you/sign-out-everywhere", sign_out_everywhere, Door.VISITOR, back=_PATH),
    Page("POST", "/hide-secret", hide_secret, Door.VISITOR, back="/"),
    Page("GET", "/confirm", confirm_form, Door.VISITOR),
    Page("POST", "/confirm", confirm, Door.VISITOR),
)
