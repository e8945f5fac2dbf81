"""A visitor without a browser, who keeps cookies, follows redirects and sends form tokens."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from urllib.parse import urlencode, urljoin, urlsplit

import sqlalchemy as sa
import urllib3
from playwright.sync_api import Page
from tests.e2e.harness import OPERATOR_KEY, Server

from uplift_server.dashboard.security import CSRF_FIELD, SESSION_COOKIE
from uplift_server.store.schema_people import sessions

_TOKEN = re.compile(r'name="csrf" value="([^"]*)"')
_PROBLEM = re.compile(r'<p class="problem" role="alert">(.*?)</p>', re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_URL_PART = re.compile(r'<wbr>|<span class="unbroken">([^<]*)</span>')


@dataclass
class PageResponse:
    """A response."""

    status: int
    path: str
    headers: urllib3.HTTPHeaderDict
    html: str

    @property
    def text(self) -> str:
        """The visible text with single spaces."""
        return " ".join(unescape(_TAG.sub(" ", _URL_PART.sub(r"\1", self.html))).split())

    @property
    def problem(self) -> str:
        """The reason why a form was rejected, or an empty string."""
        found = _PROBLEM.search(self.html)
        return "" if found is None else unescape(found[1])

    @property
    def token(self) -> str:
        """The form token of the page."""
        found = _TOKEN.search(self.html)
        return "" if found is None else found[1]


@dataclass
class Guest:
    """A visitor with their own cookies."""

    url: str
    cookies: dict[str, str] = field(default_factory=dict)
    _http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(retries=False, timeout=20))

    def get(self, path: str, *, follow: bool = True, **headers: str) -> PageResponse:
        """Get a page."""
        return self._request("GET", path, None, follow=follow, headers=headers)

    def post(
        self,
        path: str,
        *,
        page: str | None = None,
        follow: bool = True,
        token: str | None = None,
        **fields: str | list[str],
    ) -> PageResponse:
        """Submit a form with `token`, or else with the form token of `page`, which is by default the path itself."""
        sent = self.get(page or path).token if token is None else token
        body = urlencode({CSRF_FIELD: sent, **fields}, doseq=True)
        return self._request("POST", path, body, follow=follow, headers={})

    def send(self, path: str, fields: Mapping[str, str], **headers: str) -> PageResponse:
        """Submit exactly these fields without following redirects."""
        return self._request("POST", path, urlencode(fields), follow=False, headers=headers)

    def share_session(self, page: Page) -> Page:
        """Copy this session to a browser."""
        value = self.cookies[SESSION_COOKIE]
        page.context.add_cookies([{"name": SESSION_COOKIE, "value": value, "url": self.url}])
        return page

    def _request(
        self, method: str, path: str, body: str | None, *, follow: bool, headers: dict[str, str]
    ) -> PageResponse:
        sent = {"accept": "text/html", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if body is not None:
            sent["content-type"] = "application/x-www-form-urlencoded"
        response = self._http.request(method, urljoin(self.url, path), body=body, headers=sent, redirect=False)
        for cookie in response.headers.getlist("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            if value:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        if follow and response.status == 303:
            return self._request("GET", response.headers["location"], None, follow=True, headers={})
        return PageResponse(response.status, urlsplit(path).path, response.headers, response.data.decode())


def operator(server: Server) -> Guest:
    """Return a signed-in operator."""
    guest = Guest(server.url)
    guest.post("/sign-in/operator", key=OPERATOR_KEY, follow=False)
    assert "uplift_session" in guest.cookies
    return guest


def portal_link(server: Server, account: str, **wanted: str) -> str:
    """Return the path of a portal link with this `email` and `role`."""
    return urlsplit(server.api().ok("POST", f"/v1/accounts/{account}/portal-links", wanted)["url"]).path


def operator_link(server: Server) -> str:
    """Return the path of a one-time sign-in link for operators."""
    return urlsplit(server.api().ok("POST", "/v1/sign-in-links")["url"]).path


def member(server: Server, account: str, role: str = "owner", email: str | None = None) -> Guest:
    """Return a member of an account, signed in with a portal link."""
    guest = Guest(server.url)
    address = email or f"{role}@{account.removeprefix('acc_')}.example"
    guest.post(portal_link(server, account, role=role, email=address), follow=False)
    assert "uplift_session" in guest.cookies
    return guest


def open_overview(page: Page, guest: Guest) -> None:
    """Use a guest's session in a browser, and open the overview of the first account."""
    shown = guest.share_session(page)
    shown.goto("/")
    # Before the first verified event, the home page is "Get started".
    shown.goto(re.sub(r"/[a-z-]+$", "/overview", shown.url))


def expire_confirmations(server: Server) -> None:
    """Expire all password confirmations."""
    server.place.run(lambda connection: connection.execute(sa.update(sessions).values(confirmed_at=0)).rowcount)
