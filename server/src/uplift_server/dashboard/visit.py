"""One request to the dashboard: who visits, for which account, and what is answered."""

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
from uplift_server.dashboard.forms import FORM_BYTES_MAX, STRANGERS_FORM_BYTES_MAX, Form, by_field, read_form
from uplift_server.dashboard.rendering import render
from uplift_server.dashboard.security import (
    CSRF_FIELD,
    CSRF_HEADER,
    FORM_COOKIE,
    NOTICE_COOKIE,
    NOTICE_SECONDS,
    SESSION_COOKIE,
    SESSION_SECONDS,
    Safety,
    is_foreign,
    new_form_cookie,
    same,
)
from uplift_server.delivery.health.outage_guard import Outage
from uplift_server.service.context import Listing
from uplift_server.service.errors import Forbidden, NotFound
from uplift_server.service.principals import Caller
from uplift_server.service.services import Services
from uplift_server.service.sessions import Visitor
from uplift_server.service.system import System
from uplift_server.service.unfinished_bodies import ANONYMOUS
from uplift_server.store.records import Account

if TYPE_CHECKING:
    from uplift_server.dashboard.live import Live

PAGE_ITEMS: Final = 25
PART: Final = "part"
"""In a URL: only what changes by itself is wanted, without what is large beside it."""
_PLAIN_PATH: Final = re.compile(r"[!-\[\]-~]*")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What every page works with."""

    services: Services
    safety: Safety
    live: "Live"
    system: System
    sends_mail: bool
    attempt_timeout_ms: int
    """The deadline of an attempt."""
    allows_private_networks: bool
    """Whether endpoints may be on private networks, and there without TLS."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Pages are written one at a time: however many visitors there are, events wait for a piece of one page."""

    @property
    def public_url(self) -> str:
        """Where people and programs reach this server, without a final slash."""
        return self.safety.public_url.rstrip("/")


@dataclass(slots=True)
class Visit:
    """A request, with what is known of who sent it."""

    request: Request
    dashboard: Dashboard
    visitor: Visitor | None = None
    account: Account | None = None
    """Whose pages these are; None where they are nobody's."""
    _caller: Caller | None = None
    _form: Form | None = None
    _form_cookie: str | None = None
    _cookies: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def services(self) -> Services:
        """What may be asked for."""
        return self.dashboard.services

    @property
    def query(self) -> Form:
        """What the URL asks for."""
        return Form(self.request.query_params.multi_items())

    @property
    def here(self) -> str:
        """The path and the query of this request."""
        url = self.request.url
        return f"{url.path}?{url.query}" if url.query else url.path

    @property
    def address(self) -> str | None:
        """Where the request came from."""
        return self.request.client.host if self.request.client is not None else None

    @property
    def caller(self) -> Caller:
        """The visitor, acting for the account of this page, or as the operator."""
        assert self._caller is not None, "only pages behind a sign-in ask"
        return self._caller

    @property
    def mass_failure(self) -> Outage | None:
        """The mass failure that goes on, as operators are told on every page."""
        is_operator = self.visitor is not None and self.visitor.person is None
        return self.services.context.engine.status.outage if is_operator else None

    def enter(self, account: str) -> None:
        """Act for an account from here on. Raises NotFound where the visitor is none of its members."""
        assert self.visitor is not None
        self._caller = self.visitor.caller(account, self.address)
        self.account = self.services.context.cache.accounts[self._caller.require_account()]

    def enter_as_operator(self) -> None:
        """Act as the operator from here on. Raises NotFound for anybody else."""
        assert self.visitor is not None
        self._caller = self.visitor.operator(self.address)

    def cookie(self, name: str) -> str | None:
        """Return the value of one of our cookies."""
        return self.dashboard.safety.cookie(self.request, name)

    async def is_still_let_in(self) -> bool:
        """Whether a visitor who was let in for this request would be again, now. Raises Unavailable."""
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
        """The URL of a page of this account."""
        assert self.account is not None
        start = f"/accounts/{ids.prefixed(ids.ACCOUNT, self.account.id)}"
        return "/".join([start, *(quote(part, safe="") for part in parts)])

    def parameter(self, name: str) -> str:
        """A part of the path."""
        value: str = self.request.path_params[name]
        return value

    def listing(self) -> Listing:
        """Which stretch of a list the URL asks for."""
        return Listing(PAGE_ITEMS, self.query.optional("cursor"))

    def cursor(self, key: tuple[int, ...] | None) -> str | None:
        """The URL of the next stretch, with the same filters; None where nothing follows."""
        if key is None:
            return None
        asked = self.request.query_params.multi_items()
        kept = [(name, value) for name, value in asked if name not in {"cursor", PART}]
        kept.append(("cursor", self.services.context.cursors.encode(key)))
        return f"{self.request.url.path}?{urlencode(kept)}"

    async def form(self) -> Form:
        """What the form sent. Raises PayloadTooLarge and Malformed."""
        if self._form is None:
            bytes_max = STRANGERS_FORM_BYTES_MAX if self.visitor is None else FORM_BYTES_MAX
            sender = ANONYMOUS if self._caller is None else self._caller.principal.account_seq
            reservation = self.services.unfinished_bodies.reservation(sender)
            self._form = await read_form(self.request, reservation, bytes_max=bytes_max)
        return self._form

    @property
    def csrf_token(self) -> str:
        """What forms of this page must send with them."""
        if self.visitor is not None:
            return self.visitor.csrf_token
        if self._form_cookie is None:
            self._form_cookie = self.cookie(FORM_COOKIE) or new_form_cookie()
        return self.dashboard.safety.form_token(self._form_cookie)

    async def check_token(self) -> None:
        """Raise Forbidden unless the form is one of our own pages', made for this very session."""
        given = self.request.headers.get(CSRF_HEADER) or (await self.form()).text(CSRF_FIELD)
        known = self.visitor is not None or self.cookie(FORM_COOKIE) is not None
        if is_foreign(self.request, self.dashboard.public_url) or not known or not same(given, self.csrf_token):
            raise Forbidden(
                "This form is not from a page of your present session. Go back, load the page again, and repeat it."
            )

    def sign_in(self, cookie: str) -> None:
        """Begin a session with the answer."""
        self._cookies.append((SESSION_COOKIE, cookie, SESSION_SECONDS))

    def sign_out(self) -> None:
        """End it with the answer."""
        self._cookies.append((SESSION_COOKIE, "", 0))

    def render(self, template: str, status: int = 200, **context: Any) -> Response:
        """A page. Its template sees `visit` and what is given here."""
        return _Unwritten(self, template, status, context)

    async def write(self, template: str, context: Mapping[str, Any], status: int) -> Response:
        """The same, once its template is filled."""
        notice = self.cookie(NOTICE_COOKIE)
        told = None if notice is None else self.dashboard.safety.read_notice(notice)
        given = {"visit": self, "notice": told, "problems": {}, "refusal": None, **context}
        async with self.dashboard.writing:
            body = await render(template, given)
        if notice is not None:
            self._cookies.append((NOTICE_COOKIE, "", 0))
        return self.finish(HTMLResponse(body, status))

    def refuse(self, template: str, problems: Sequence[Problem], **context: Any) -> Response:
        """A form again, with what is wrong at each of its fields."""
        return self.render(template, 422, problems=by_field(problems), **context)

    def leave(self, path: str, notice: str | None = None) -> Response:
        """Go on at another page of ours, which tells what was done."""
        if notice is not None:
            self._cookies.append((NOTICE_COOKIE, self.dashboard.safety.notice_text(notice), NOTICE_SECONDS))
        return self.finish(RedirectResponse(path, 303))

    def finish(self, response: Response) -> Response:
        """An answer with what all answers carry."""
        if self._form_cookie is not None and self.cookie(FORM_COOKIE) != self._form_cookie:
            self._cookies.append((FORM_COOKIE, self._form_cookie, SESSION_SECONDS))
        for name, value, seconds in self._cookies:
            self.dashboard.safety.set_cookie(response, name, value, seconds=seconds)
        self.dashboard.safety.protect(response)
        return response


class _Unwritten(Response):
    """A page whose template is yet to be filled: that takes a while, and is done in pieces."""

    def __init__(self, visit: Visit, template: str, status: int, context: Mapping[str, Any]) -> None:
        super().__init__(status_code=status)
        self._visit = visit
        self._template = template
        self._context = context

    async def written(self) -> Response:
        """The page."""
        return await self._visit.write(self._template, self._context, self.status_code)


async def written(response: Response) -> Response:
    """An answer as it is sent: a page, with its template filled."""
    return await response.written() if isinstance(response, _Unwritten) else response


def link(path: str, **query: str | None) -> str:
    """A URL with those parameters that are not None."""
    kept: Mapping[str, str] = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(kept)}" if kept else path


def own_path(text: str) -> str:
    """Where a visitor wants to go on, if that is a page of ours; else the beginning."""
    # Browsers leave out white space within a URL, and take \\ for /: "/\t/elsewhere" leads away.
    ours = text.startswith("/") and not text.startswith("//") and _PLAIN_PATH.fullmatch(text)
    return text if ours else "/"
