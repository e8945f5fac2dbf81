"""Your sign-in: sessions and accounts; and the question for the password before secrets are shown."""

from typing import Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.dashboard.routes import Door, Page
from uplift_server.dashboard.visit import Visit, own_path
from uplift_server.service.errors import NotFound, RateLimited, Unauthorized
from uplift_server.store.records import Person

_CONFIRM: Final = "you/confirm.html"


async def page(visit: Visit) -> Response:
    """What concerns a person, not an account."""
    assert visit.visitor is not None
    accounts = [
        (f"/accounts/{ids.prefixed(ids.ACCOUNT, each.account.id)}/overview", each) for each in visit.visitor.memberships
    ]
    return visit.render("you/page.html", person=_person(visit), accounts=accounts)


async def sign_out_everywhere(visit: Visit) -> Response:
    """End every session, this one too."""
    assert visit.visitor is not None
    await visit.services.sessions.sign_out_everywhere(visit.visitor)
    visit.sign_out()
    return visit.leave("/sign-in", "You are signed out everywhere.")


async def confirm_form(visit: Visit) -> Response:
    """Ask for the password again."""
    return _confirm(visit, visit.query.text("next"))


async def confirm(visit: Visit) -> Response:
    """Take the password, and go on."""
    sent = await visit.form()
    assert visit.visitor is not None
    wanted = sent.text("next")
    try:
        await visit.services.sessions.confirm(visit.visitor, sent.raw("password"), address=visit.address)
    except Unauthorized as error:
        return _confirm(visit, wanted, 401, error.detail)
    except RateLimited as error:
        return _confirm(visit, wanted, 429, error.detail)
    return visit.leave(own_path(wanted), "Confirmed: for ten minutes secrets are shown without asking again.")


def _confirm(visit: Visit, wanted: str, status: int = 200, refusal: str | None = None) -> Response:
    return visit.render(_CONFIRM, status, next=own_path(wanted), refusal=refusal)


def _person(visit: Visit) -> Person:
    assert visit.visitor is not None
    if visit.visitor.person is None:
        raise NotFound("Operators have no sign-in of their own here: their key is in the server's configuration.")
    return visit.visitor.person


PAGES: Final = (
    Page("GET", "/you", page, Door.VISITOR),
    Page("POST", "/you/sign-out-everywhere", sign_out_everywhere, Door.VISITOR),
    Page("GET", "/confirm", confirm_form, Door.VISITOR),
    Page("POST", "/confirm", confirm, Door.VISITOR),
)
