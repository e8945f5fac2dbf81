"""A request to the dashboard: its visitor, its account, and methods that create the response."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from uplift_server.core import ids
from uplift_server.core.problems import Problem
from uplift_server.dashboard.brand import Brand
from uplift_server.dashboard.forms import (
    ENDED_FORM_BYTES_MAX,
    FORM_BYTES_MAX,
    STRANGERS_FORM_BYTES_MAX,
    Form,
    by_field,
    read_form,
)
from uplift_server.dashboard.rendering import render
from uplift_server.dashboard.security import (
    CSRF_FIELD,
    CSRF_HEADER,
    FORM_COOKIE,
    NOTICE_COOKIE,
    NOTICE_SECONDS,
    SESSION_COOKIE,
    SESSION_SECONDS,
    SHOWN_COOKIE,
    Safety,
    is_foreign,
    is_own,
    new_form_cookie,
    same,
)
from uplift_server.dashboard.shown_secrets import SHOWN_SECONDS, SecretCookies, ShownSecret
from uplift_server.delivery.health.outage_guard import Outage
from uplift_server.service.context import Listing
from uplift_server.service.errors import NotFound
from uplift_server.service.principals import Caller
from uplift_server.service.services import Services
from uplift_server.service.sessions import Visitor
from uplift_server.service.system import System
from uplift_server.service.unfinished_bodies import ANONYMOUS
from uplift_server.store.records import Account

if TYPE_CHECKING:
    from uplift_server.dashboard.live import Live

PAGE_ITEMS: Final = 25
TRAIL_PAGES_MAX: Final = 20
"""Maximum number of pages that a visitor can go back one at a time.

After this number of pages, the link to newer rows goes to the first page.
"""
PART: Final = "part"
"""The URL parameter that requests only the live region of a page."""
SHOWN: Final = "shown"
"""The URL parameter with the ID of the object whose secret the page shows."""
OPERATOR: Final = "operator"
"""The value of the parameter `needs` of `Visit.can_call` for API calls that only operators can make."""
SHARED_NOUNS: Final = frozenset({"attempts", "deliveries", "endpoints", "events", "rejected-events", "replays"})
"""The command groups that both `uplift` and `uplift-server` have.

In `uplift-server`, the commands of these groups have the option `--account`.
"""
_PLAIN_PATH: Final = re.compile(r"[!-\[\]-~]*")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """The dependencies that all pages share."""

    services: Services
    safety: Safety
    live: "Live"
    system: System
    sends_mail: bool
    allows_private_networks: bool
    """Whether endpoint URLs can point to private networks and use HTTP without TLS."""
    brand: Brand
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """A lock that lets only one page render at a time. Many pages at once would slow down the processing of events."""

    @property
    def public_url(self) -> str:
        """The URL of this server, without a trailing slash."""
        return self.safety.public_url.rstrip("/")


@dataclass(slots=True)
class Visit:
    """A request to the dashboard: its visitor, its account, and methods that create the response."""

    request: Request
    dashboard: Dashboard
    visitor: Visitor | None = None
    account: Account | None = None
    """The account to which the page belongs, or None for pages without an account."""
    _caller: Caller | None = None
    _form: Form | None = None
    _form_cookie: str | None = None
    _cookies: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def services(self) -> Services:
        """The services of the server."""
        return self.dashboard.services

    @property
    def query(self) -> Form:
        """The fields in the URL query."""
        return Form(self.request.query_params.multi_items())

    @property
    def here(self) -> str:
        """The path and query of this request."""
        url = self.request.url
        return f"{url.path}?{url.query}" if url.query else url.path

    @property
    def address(self) -> str | None:
        """The IP address of the client."""
        return self.request.client.host if self.request.client is not None else None

    @property
    def caller(self) -> Caller:
        """The visitor's identity and permissions, for calls to the services."""
        assert self._caller is not None, "the page requires a signed-in visitor"
        return self._caller

    @property
    def mass_failure(self) -> Outage | None:
        """The current mass failure, which all pages show to operators."""
        is_operator = self.visitor is not None and self.visitor.person is None
        return self.services.context.engine.status.outage if is_operator else None

    @property
    def may_write(self) -> bool:
        """Whether the visitor can make changes. Read-only operators cannot make changes."""
        return self.visitor is not None and not self.visitor.is_read_only

    def can_call(self, needs: str | None) -> bool:
        """Return whether an API key with the visitor's permissions could make an API call.

        `needs` is the scope that the call requires, OPERATOR, or None if the call requires no scope.
        """
        principal = self.caller.principal
        is_allowed = principal.is_operator and not principal.is_read_only
        return is_allowed or needs is None or needs in principal.scopes

    def command(self, command: str) -> str | None:
        """Return the command in the form that the visitor can run: `uplift` for members, `uplift-server` for operators.

        Return None if the visitor's program does not have the command.
        """
        is_for_operators = command.startswith("uplift-server ")
        if not self.caller.principal.is_operator:
            return None if is_for_operators else command
        if is_for_operators:
            return command
        _, noun, *_ = command.split(maxsplit=2)
        if noun not in SHARED_NOUNS:
            return None
        account = "" if self.account is None else f" --account {ids.prefixed(ids.ACCOUNT, self.account.id)}"
        # Use `+`: a command from a template is Markup. An f-string would return a str, which the template would escape.
        return "uplift-server " + command.removeprefix("uplift ") + account

    def enter(self, account: str) -> None:
        """Select the account for this request. Raises NotFound if the visitor has no access to the account."""
        assert self.visitor is not None
        self._caller = self.visitor.caller(account, self.address)
        self.account = self.services.context.cache.accounts[self._caller.require_account()]

    def enter_as_operator(self) -> None:
        """Select the operator role for this request. Raises NotFound for visitors who are not operators."""
        assert self.visitor is not None
        self._caller = self.visitor.operator(self.address)

    def cookie(self, name: str) -> str | None:
        """Return the value of a dashboard cookie."""
        return self.dashboard.safety.cookie(self.request, name)

    async def is_still_let_in(self) -> bool:
        """Return whether the visitor still has access to this page. Raises Unavailable."""
        visitor = await self.services.sessions.visitor(self.cookie(SESSION_COOKIE))
        if visitor is None:
            return False
        try:
            if self.account is None:
                visitor.operator(self.address)
            else:
                visitor.caller(ids.prefixed(ids.ACCOUNT, self.account.id), self.address)
        except NotFound:
            return False
        return True

    def path(self, *parts: str) -> str:
        """Return the URL of a page in this request's account."""
        assert self.account is not None
        start = f"/accounts/{ids.prefixed(ids.ACCOUNT, self.account.id)}"
        return "/".join([start, *(quote(part, safe="") for part in parts)])

    def parameter(self, name: str) -> str:
        """Return a parameter in the URL path."""
        value: str = self.request.path_params[name]
        return value

    def listing(self) -> Listing:
        """Return the number of rows per page and the cursor in the URL, as a Listing, which services accept."""
        return Listing(PAGE_ITEMS, self.query.optional("cursor"))

    def cursor(self, key: tuple[int, ...] | None) -> str | None:
        """Return the URL of the page that has the next older rows and the same filters.

        `key` is the `Page.next_key` of the current page. On the last page, it is None, and the method returns None.
        """
        if key is None:
            return None
        here = self.query.optional("cursor")
        trail = [*self._trail, here] if here else []
        return self._page(self.services.context.cursors.encode(key), trail[-TRAIL_PAGES_MAX:])

    @property
    def newer(self) -> str | None:
        """The URL of the page that has the next newer rows, or None on the first page."""
        if not self.query.optional("cursor"):
            return None
        trail = self._trail
        return self._page(trail[-1] if trail else None, trail[:-1])

    @property
    def _trail(self) -> list[str]:
        """The cursors of the pages between the first page and this page, for the links to newer rows."""
        return [each for each in self.query.text("trail").split(".") if each]

    def _page(self, cursor: str | None, trail: Sequence[str]) -> str:
        asked = self.request.query_params.multi_items()
        kept = [(name, value) for name, value in asked if name not in {"cursor", "trail", PART}]
        kept += [("cursor", cursor)] if cursor else []
        kept += [("trail", ".".join(trail))] if trail else []
        return f"{self.request.url.path}?{urlencode(kept)}" if kept else self.request.url.path

    async def form(self, *, session_ended: bool = False) -> Form:
        """Return the submitted form. Raises PayloadTooLarge, Malformed, RateLimited or Busy.

        Set `session_ended` if the visitor's session ended before the visitor submitted the form. The size limit is then
        ENDED_FORM_BYTES_MAX.
        """
        if self._form is None:
            bytes_max, advice = STRANGERS_FORM_BYTES_MAX, "Shorten your input."
            if self.visitor is not None:
                bytes_max = FORM_BYTES_MAX
            elif session_ended:
                bytes_max, advice = ENDED_FORM_BYTES_MAX, "Sign in in another tab, go back, and send the form again."
            bodies = self.services.unfinished_bodies
            if self._caller is None:
                reservation = bodies.reservation(ANONYMOUS)
            else:
                reservation = bodies.reservation_of(self._caller.principal)
            self._form = await read_form(self.request, reservation, bytes_max=bytes_max, advice=advice)
        return self._form

    @property
    def sent_form(self) -> Form:
        """The submitted form. Call `form` first."""
        assert self._form is not None
        return self._form

    def use_form(self, form: Form) -> None:
        """Replace this request's submitted form."""
        self._form = form

    @property
    def csrf_token(self) -> str:
        """The CSRF token that each form on this page must contain."""
        if self.visitor is not None:
            return self.visitor.csrf_token
        if self._form_cookie is None:
            self._form_cookie = self.cookie(FORM_COOKIE) or new_form_cookie()
        return self.dashboard.safety.form_token(self._form_cookie)

    @property
    def proves_origin(self) -> bool:
        """Whether the browser reports that a page of this dashboard sent the form."""
        return is_own(self.request, self.dashboard.public_url)

    def is_own_token(self, token: str) -> bool:
        """Return whether a form token is valid for this session or, without a session, for this browser's form cookie.

        Return False if the browser reports that a page on another site sent the form.
        """
        known = self.visitor is not None or self.cookie(FORM_COOKIE) is not None
        foreign = is_foreign(self.request, self.dashboard.public_url)
        return known and not foreign and same(token, self.csrf_token)

    async def has_token(self) -> bool:
        """Return whether the request contains a valid form token, in a header or a field."""
        return self.is_own_token(self.request.headers.get(CSRF_HEADER) or (await self.form()).text(CSRF_FIELD))

    def sign_in(self, cookie: str) -> None:
        """Set the session cookie in the response."""
        self._cookies.append((SESSION_COOKIE, cookie, SESSION_SECONDS))

    def sign_out(self) -> None:
        """Tell the browser to delete the session cookie and the cookie that contains the shown secret."""
        self._cookies.append((SESSION_COOKIE, "", 0))
        self.hide_secret()

    def set_cookie(self, name: str, value: str, *, seconds: int) -> None:
        """Set a cookie in the response. If `seconds` is 0, delete the cookie."""
        self._cookies.append((name, value, seconds))

    def notify(self, text: str, *, is_problem: bool = False) -> None:
        """Show a notice on the next page. If `is_problem` is true, the notice states why a form was rejected."""
        value = self.dashboard.safety.notice_text(text, is_problem=is_problem)
        self._cookies.append((NOTICE_COOKIE, value, NOTICE_SECONDS))

    def render(self, template: str, status: int = 200, **context: Any) -> Response:
        """Return a response whose body is the rendered template. The template receives `visit` and `context`."""
        return _Unwritten(self, template, status, context)

    async def write(self, template: str, context: Mapping[str, Any], status: int) -> Response:
        """Render a template and return the finished response."""
        notice = self.cookie(NOTICE_COOKIE)
        told = None if notice is None else self.dashboard.safety.read_notice(notice)
        given = {"visit": self, "notice": None, "problems": {}, "refusal": None, **context}
        if told is not None and given["refusal"] is None:
            given["refusal" if told.is_problem else "notice"] = told.text
        async with self.dashboard.writing:
            body = await render(template, given)
        if notice is not None:
            self._cookies.append((NOTICE_COOKIE, "", 0))
        return self.finish(HTMLResponse(body, status))

    def refuse(self, template: str, problems: Sequence[Problem], **context: Any) -> Response:
        """Return the page that contains the form, with each problem next to its field."""
        return self.render(template, 422, problems=by_field(problems), **context)

    def leave(self, path: str, notice: str | None = None, *, problem: str | None = None) -> Response:
        """Redirect to another page, which shows `notice` or `problem`. `problem` states why a form was rejected."""
        text = notice if problem is None else problem
        if text is not None:
            self.notify(text, is_problem=problem is not None)
        return self.finish(RedirectResponse(path, 303))

    def leave_with_secret(self, path: str, subject: str, secret: str | None, notice: str | None = None) -> Response:
        """Redirect to a page that shows an object's secret for SHOWN_SECONDS.

        If a request is repeated, `secret` is None. The page then shows the secret that the first response stored in the
        cookie.
        """
        if secret is not None:
            now = self.services.context.now()
            cookie = SecretCookies(self.dashboard.safety.key).write(subject, secret, self._place, now)
            self._cookies.append((SHOWN_COOKIE, cookie, SHOWN_SECONDS))
        return self.leave(f"{path}{'&' if '?' in path else '?'}{urlencode({SHOWN: subject})}", notice)

    def shown_secret(self, subject: str, *, since: int = 0) -> ShownSecret | None:
        """Return an object's shown secret, or None if this URL does not show the object's secret.

        `since` is the time (Unix ms) when the secret last changed. If the page first showed the secret before this
        time, return None.
        """
        cookie = self.cookie(SHOWN_COOKIE)
        if cookie is None or self.visitor is None or self.query.text(SHOWN) != subject:
            return None
        now = self.services.context.now()
        shown = SecretCookies(self.dashboard.safety.key).read(cookie, self._place, now)
        return shown if shown is not None and shown.subject == subject and shown.since >= since else None

    @property
    def _place(self) -> bytes:
        """The session ID and the account ID to which the cookie of a shown secret is bound."""
        assert self.visitor is not None, "only signed-in visitors see secrets"
        return self.visitor.session_id + (b"" if self.account is None else self.account.id)

    def hide_secret(self) -> None:
        """Tell the browser to delete the cookie that contains the shown secret."""
        self._cookies.append((SHOWN_COOKIE, "", 0))

    def finish(self, response: Response) -> Response:
        """Add this request's cookies and security headers to a response."""
        if self._form_cookie is not None and self.cookie(FORM_COOKIE) != self._form_cookie:
            self._cookies.append((FORM_COOKIE, self._form_cookie, SESSION_SECONDS))
        for name, value, seconds in self._cookies:
            self.dashboard.safety.set_cookie(response, name, value, seconds=seconds)
        self.dashboard.safety.protect(response)
        return response


class _Unwritten(Response):
    """A response whose template is rendered later."""

    def __init__(self, visit: Visit, template: str, status: int, context: Mapping[str, Any]) -> None:
        super().__init__(status_code=status)
        self._visit = visit
        self._template = template
        self._context = context

    async def written(self) -> Response:
        """Return the response with the rendered template."""
        return await self._visit.write(self._template, self._context, self.status_code)


async def written(response: Response) -> Response:
    """Return a response. If the response has a template, render the template first."""
    return await response.written() if isinstance(response, _Unwritten) else response


def link(path: str, **query: str | None) -> str:
    """Return a URL from a path and the query parameters that are not None."""
    kept: Mapping[str, str] = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(kept)}" if kept else path


def own_path(text: str) -> str:
    """Return `text` unchanged if it is a path on this server. Otherwise, return the home page's path."""
    # Browsers ignore white space in URLs and treat \\ as /, so "/\t/elsewhere" leads to another site.
    ours = text.startswith("/") and not text.startswith("//") and _PLAIN_PATH.fullmatch(text)
    return text if ours else "/"
