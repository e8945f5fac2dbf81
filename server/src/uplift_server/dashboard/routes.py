"""What a page needs before it is served, as data: who may come in, and by which method."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import quote

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from uplift_server.dashboard.security import SESSION_COOKIE
from uplift_server.dashboard.visit import Dashboard, Visit, written
from uplift_server.service import errors
from uplift_server.store.errors import StoreError

_log = structlog.get_logger()

Serve = Callable[[Visit], Awaitable[Response]]


class Door(Enum):
    """Who may come in."""

    ANYBODY = "anybody"
    VISITOR = "visitor"
    """Whoever is signed in."""
    ACCOUNT = "account"
    """A member of the account the path names, or an operator."""
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Page:
    """One route. What is not GET changes something, and wants the token of a form."""

    method: str
    path: str
    serve: Serve
    door: Door


NOT_SIGNED_IN: Final = "You are not signed in any more. Sign in, and repeat it."
_ACCOUNT: Final = "/accounts/{account}"
_STATUS: Final[dict[type[Exception], tuple[int, str]]] = {
    errors.NotFound: (404, "Not found"),
    errors.Forbidden: (403, "Not allowed"),
    errors.Unauthorized: (403, "Not allowed"),
    errors.Conflict: (409, "Not possible now"),
    errors.RateLimited: (429, "Too many attempts"),
    errors.Busy: (503, "Busy for a moment"),
    errors.PayloadTooLarge: (413, "Too large"),
    errors.Malformed: (400, "Cannot be read"),
    errors.Invalid: (422, "Not accepted"),
    errors.AccountRequired: (404, "Not found"),
}


def account_page(path: str, serve: Serve) -> Page:
    """A page of an account; `path` goes on after /accounts/{account}."""
    return Page("GET", _ACCOUNT + path, serve, Door.ACCOUNT)


def account_form(path: str, serve: Serve) -> Page:
    """A form of an account's page, which changes something."""
    return Page("POST", _ACCOUNT + path, serve, Door.ACCOUNT)


def operator_page(path: str, serve: Serve) -> Page:
    """A page of the operators' console; `path` goes on after /operator."""
    return Page("GET", f"/operator{path}", serve, Door.OPERATOR)


def operator_form(path: str, serve: Serve) -> Page:
    """A form of the operators' console."""
    return Page("POST", f"/operator{path}", serve, Door.OPERATOR)


def route(page: Page, dashboard: Dashboard) -> Route:
    """A page as the framework serves it."""

    async def served(request: Request) -> Response:
        visit = Visit(request, dashboard)
        try:
            return await written(await _serve(page, visit))
        except Exception as error:
            return await written(refused(visit, error, page))

    return Route(page.path, served, methods=[page.method], name=f"{page.method} {page.path}")


async def _serve(page: Page, visit: Visit) -> Response:
    visit.visitor = await visit.services.sessions.visitor(visit.cookie(SESSION_COOKIE))
    if page.door is not Door.ANYBODY and visit.visitor is None:
        return _to_sign_in(page, visit)
    if page.door is Door.ACCOUNT:
        visit.enter(visit.parameter("account"))
    elif page.door is Door.OPERATOR:
        visit.enter_as_operator()
    if page.method != "GET":
        await visit.check_token()
    return await page.serve(visit)


def _to_sign_in(page: Page, visit: Visit) -> Response:
    """To the form, and from there to where the visitor wanted to go."""
    if page.method != "GET":
        raise errors.Forbidden(NOT_SIGNED_IN)
    return visit.leave(f"/sign-in?next={quote(visit.here, safe='')}")


def refused(visit: Visit, error: Exception, page: Page | None = None) -> Response:
    """The page that says why there is no other."""
    if isinstance(error, StoreError):
        return _told(visit, 503, "Not available now", "The database cannot answer now. Try again in a moment.")
    if isinstance(error, errors.ServiceError):
        status, title = next(told for kind, told in _STATUS.items() if isinstance(error, kind))
        return _told(visit, status, title, error.detail)
    # Not the path itself: the tokens of links are parts of some.
    _log.error("a page failed", page=None if page is None else page.path, exc_info=error)
    return _told(visit, 500, "This page failed", "This is a defect of ours, and the log tells of it. Nothing is lost.")


def _told(visit: Visit, status: int, title: str, text: str) -> Response:
    return visit.render("error.html", status, title=title, text=text)
