"""Routes for pages: their methods, their paths, and the visitors who can access them."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import quote

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from uplift_server.dashboard import pending_sign_ins, sign_in_again
from uplift_server.dashboard.security import SESSION_COOKIE
from uplift_server.dashboard.visit import Dashboard, Visit, own_path, written
from uplift_server.service import errors
from uplift_server.service.principals import READ_ONLY
from uplift_server.service.second_factors import SecondFactorRequired
from uplift_server.store.errors import StoreError

_log = structlog.get_logger()

Serve = Callable[[Visit], Awaitable[Response]]


class Door(Enum):
    """The visitors who can access a page."""

    ANYBODY = "anybody"
    VISITOR = "visitor"
    """Every visitor who is signed in."""
    ACCOUNT = "account"
    """Members of the account in the path, and operators."""
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Page:
    """One route of the dashboard. Methods other than GET require a form token."""

    method: str
    path: str
    serve: Serve
    door: Door
    back: str | None = None
    """The path of the page that contains the form, if the form's own path has no page.

    GET requests to the form's path then redirect to this page.
    """

    def page_of_form(self, visit: Visit) -> str:
        """Return the URL of the page `back`, with this request's path parameters."""
        assert self.back is not None
        return _PARAMETER.sub(lambda found: quote(visit.parameter(found[1]), safe=""), self.back)


_OTHER_SESSION: Final = "This form does not belong to your current session. Reload the page and submit the form again."
_CHANGED: Final = "Your session changed in another tab. Try again."
_ACCOUNT: Final = "/accounts/{account}"
_OPERATOR: Final = "/operator"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_STATUS: Final[dict[type[Exception], tuple[int, str]]] = {
    errors.NotFound: (404, "Not found"),
    errors.Forbidden: (403, "Not allowed"),
    errors.Unauthorized: (403, "Not allowed"),
    errors.Conflict: (409, "Conflict"),
    errors.RateLimited: (429, "Too many requests"),
    errors.Busy: (503, "Server busy"),
    errors.PayloadTooLarge: (413, "Request too large"),
    errors.Malformed: (400, "Invalid request"),
    errors.Invalid: (422, "Invalid input"),
    errors.AccountRequired: (404, "Not found"),
}


_REJECTIONS: Final = (errors.Conflict, errors.RateLimited, errors.Busy)
"""Errors that reject a whole form, not one field."""


def account_page(path: str, serve: Serve) -> Page:
    """Return a route for an account page. `path` is appended to `/accounts/{account}`."""
    return Page("GET", _ACCOUNT + path, serve, Door.ACCOUNT)


def account_form(path: str, serve: Serve, *, back: str | None = None) -> Page:
    """Return a route for a form on the account page `back`. By default, the page has the same path as the form."""
    return Page("POST", _ACCOUNT + path, serve, Door.ACCOUNT, None if back is None else _ACCOUNT + back)


def operator_page(path: str, serve: Serve) -> Page:
    """Return a route for an operator page. `path` is appended to `/operator`."""
    return Page("GET", _OPERATOR + path, serve, Door.OPERATOR)


def operator_form(path: str, serve: Serve, *, back: str | None = None) -> Page:
    """Return a route for a form on the operator page `back`. By default, the page has the same path as the form."""
    return Page("POST", _OPERATOR + path, serve, Door.OPERATOR, None if back is None else _OPERATOR + back)


def route(page: Page, dashboard: Dashboard) -> Route:
    """Return the Starlette route of a page."""

    async def served(request: Request) -> Response:
        visit = Visit(request, dashboard)
        try:
            if page.back is not None and request.method != page.method:
                return visit.leave(page.page_of_form(visit))
            return await written(await _serve(page, visit))
        except SecondFactorRequired as error:
            return pending_sign_ins.ask_code(visit, error.pending, own_path(visit.sent_form.text("next")))
        except _REJECTIONS as error:
            # Redirect, so that a reload of the page does not submit the form again.
            if page.back is not None:
                return visit.leave(page.page_of_form(visit), problem=error.detail)
            return await written(refused(visit, error, page))
        except Exception as error:
            return await written(refused(visit, error, page))

    methods = [page.method] if page.back is None else ["GET", page.method]
    return Route(page.path, served, methods=methods, name=f"{page.method} {page.path}")


async def _serve(page: Page, visit: Visit) -> Response:
    visit.visitor = await visit.services.sessions.visitor(visit.cookie(SESSION_COOKIE))
    submits, is_signed_in = page.method != "GET", visit.visitor is not None
    if page.door is not Door.ANYBODY and not is_signed_in:
        if not submits:
            # After sign-in, the browser returns to this page.
            return visit.leave(f"/sign-in?next={quote(visit.here, safe='')}")
        asking = await sign_in_again.sign_in(visit, as_operator=page.door is Door.OPERATOR)
        if asking is not None:
            return asking
    if submits and page.door is not Door.ANYBODY and not visit.may_write:
        raise errors.Forbidden(READ_ONLY)
    if page.door is Door.ACCOUNT:
        visit.enter(visit.parameter("account"))
    elif page.door is Door.OPERATOR:
        visit.enter_as_operator()
    needs_token = submits and (is_signed_in or page.door is Door.ANYBODY)
    if needs_token and not await visit.has_token():
        if not visit.proves_origin:
            raise errors.Forbidden(_OTHER_SESSION)
        if page.door is Door.ANYBODY:
            here = visit.request.url.path if page.back is None else page.page_of_form(visit)
            return visit.leave(here, problem=_CHANGED)
        return sign_in_again.confirm_session(visit)
    return await page.serve(visit)


def refused(visit: Visit, error: Exception, page: Page | None = None) -> Response:
    """Return the error page for an exception. `page` is the route that raised the exception, for the log."""
    if isinstance(error, StoreError):
        text = "The database is not available. Try again in a moment."
        return _told(visit, 503, "Temporarily unavailable", text, may_resend=True)
    if isinstance(error, errors.ServiceError):
        status, title = next(told for kind, told in _STATUS.items() if isinstance(error, kind))
        may_resend = isinstance(error, errors.RateLimited | errors.Busy)
        return _told(visit, status, title, error.detail, may_resend=may_resend)
    # Log the route, not the path, because some paths contain tokens.
    _log.error("page request failed with unexpected error", page=None if page is None else page.path, exc_info=error)
    return _told(
        visit,
        500,
        "Internal error",
        "The server could not show this page. Try again, or ask the operator to check the server log.",
    )


def _told(visit: Visit, status: int, title: str, text: str, *, may_resend: bool = False) -> Response:
    """Return the error page. If `may_resend` is true, a reload of the page submits its form again."""
    return visit.render("error.html", status, title=title, text=text, may_resend=may_resend)
