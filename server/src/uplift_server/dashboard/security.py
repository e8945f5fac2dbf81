"""The dashboard's security headers, cookies, and form tokens."""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

SESSION_COOKIE: Final = "uplift_session"
FORM_COOKIE: Final = "uplift_form"
"""The cookie that visitors have before sign-in.

The dashboard derives form tokens from the cookie, so other sites cannot submit forms.
"""
NOTICE_COOKIE: Final = "uplift_notice"
SHOWN_COOKIE: Final = "uplift_shown"
"""The cookie that stores a one-time secret, so that the page shows the secret again after a reload."""
HOST_PREFIX: Final = "__Host-"
"""Prefix of cookie names if the dashboard uses HTTPS.

Browsers accept cookies with this prefix only from this host, with `Secure` and `Path=/`.
"""
NOTICE_SECONDS: Final = 30
SESSION_SECONDS: Final = 30 * 86_400
FORM_COOKIE_BYTES: Final = 16
NOTICE_CHARACTERS_MAX: Final = 500
CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "x-csrf-token"

_MAC_BYTES: Final = 16
_NOTICE: Final = b"n"
_PROBLEM: Final = b"p"
"""The first byte of a signed notice that reports a problem."""


class Notice(NamedTuple):
    """A message about a submitted form. The next page shows the message once."""

    text: str
    is_problem: bool
    """Whether the notice states why a form was rejected."""


@dataclass(frozen=True, slots=True)
class Safety:
    """The security settings of the dashboard. The methods set headers and cookies, and sign form tokens and notices."""

    key: bytes
    public_url: str
    frame_ancestors: str | None = None
    """The sites that can show the dashboard in a frame, as a Content-Security-Policy source list.

    None means no site.
    """

    @property
    def secure(self) -> bool:
        """Whether cookies require HTTPS."""
        return urlsplit(self.public_url).scheme == "https"

    def protect(self, response: Response, *, cached: bool = False) -> None:
        """Set the security headers of a response."""
        ancestors = self.frame_ancestors or "'none'"
        headers = response.headers
        headers["content-security-policy"] = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
            f" form-action 'self'; base-uri 'none'; frame-ancestors {ancestors}"
        )
        headers["x-content-type-options"] = "nosniff"
        headers["referrer-policy"] = "same-origin"
        headers["cross-origin-opener-policy"] = "same-origin"
        if not self.frame_ancestors:
            headers["x-frame-options"] = "DENY"
        if not cached:
            headers["cache-control"] = "no-store"

    def set_cookie(self, response: Response, name: str, value: str, *, seconds: int) -> None:
        """Set a cookie that scripts cannot read.

        If a page on another site shows the dashboard in a frame, the browser sends the cookie only if the dashboard
        uses HTTPS.
        """
        parts = [f"{self._cookie_name(name)}={value}", "Path=/", f"Max-Age={seconds}", "HttpOnly"]
        if self.secure:
            parts.append("Secure")
        framed = self.frame_ancestors is not None and self.secure
        parts += ["SameSite=None", "Partitioned"] if framed else ["SameSite=Lax"]
        response.headers.append("set-cookie", "; ".join(parts))

    def cookie(self, request: Request, name: str) -> str | None:
        """Return the value of a cookie that `set_cookie` has set."""
        return request.cookies.get(self._cookie_name(name))

    def _cookie_name(self, name: str) -> str:
        return HOST_PREFIX + name if self.secure else name

    def form_token(self, cookie: str) -> str:
        """Return the form token for a visitor without a session, derived from the form cookie."""
        return self._mac(b"form", cookie.encode()).hex()

    def notice_text(self, text: str, *, is_problem: bool = False) -> str:
        """Return a notice as the value of a signed cookie."""
        content = (_PROBLEM if is_problem else _NOTICE) + text[:NOTICE_CHARACTERS_MAX].encode()
        return base64.urlsafe_b64encode(self._mac(b"notice", content) + content).decode()

    def read_notice(self, value: str) -> Notice | None:
        """Return the notice in a cookie, or None if the signature is invalid."""
        try:
            sent = base64.urlsafe_b64decode(value.encode("ascii", "replace"))
        except (binascii.Error, ValueError):
            return None
        mac, content = sent[:_MAC_BYTES], sent[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(b"notice", content)):
            return None
        return Notice(content[1:].decode(), content[:1] == _PROBLEM)

    def _mac(self, purpose: bytes, content: bytes) -> bytes:
        return hmac.digest(self.key, purpose + b"\0" + content, hashlib.sha256)[:_MAC_BYTES]


def new_form_cookie() -> str:
    """Return a random value for FORM_COOKIE."""
    return secrets.token_hex(FORM_COOKIE_BYTES)


def same(given: str, expected: str) -> bool:
    """Compare two tokens in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


def is_foreign(request: Request, public_url: str) -> bool:
    """Return whether the browser reports that a page on another site sent the request.

    The public URL's host also counts as this site's host, because a reverse proxy can change the `Host` header.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return True
    origin = request.headers.get("origin")
    if origin is None or origin == "null":
        return False
    # Do not parse the origin, because it is not necessarily a valid URL.
    return origin.partition("://")[2] not in {request.headers.get("host"), urlsplit(public_url).netloc}


def is_own(request: Request, public_url: str) -> bool:
    """Return whether the browser reports that a page of this dashboard sent the request."""
    reported = request.headers.get("sec-fetch-site") == "same-origin" or request.headers.get("origin", "null") != "null"
    return reported and not is_foreign(request, public_url)
