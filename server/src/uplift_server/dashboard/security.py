"""What keeps the dashboard's visitors safe: the headers of every answer, cookies, and the tokens of forms."""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

SESSION_COOKIE: Final = "uplift_session"
FORM_COOKIE: Final = "uplift_form"
"""Stands for a session where there is none yet: what a form must repeat, sealed, so that no other site can send it."""
NOTICE_COOKIE: Final = "uplift_notice"
HOST_PREFIX: Final = "__Host-"
"""Prefix of cookie names over HTTPS. Browsers accept such a cookie only from this host, with `Secure` and `Path=/`."""
NOTICE_SECONDS: Final = 30
SESSION_SECONDS: Final = 30 * 86_400
FORM_COOKIE_BYTES: Final = 16
NOTICE_CHARACTERS_MAX: Final = 500
CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "x-csrf-token"

_MAC_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Safety:
    """How this server's dashboard is reached and framed, and the key of what it signs."""

    key: bytes
    public_url: str
    frame_ancestors: str | None = None
    """Which pages may frame it, as a source list of Content-Security-Policy; None: none may."""

    @property
    def secure(self) -> bool:
        """Whether cookies travel over TLS only."""
        return urlsplit(self.public_url).scheme == "https"

    def protect(self, response: Response, *, cached: bool = False) -> None:
        """Set the headers that every answer has."""
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
        """Set a cookie that scripts cannot read. In a frame of another site it requires HTTPS."""
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
        """What a form without a session must send, for its cookie."""
        return self._mac(b"form", cookie.encode()).hex()

    def notice_text(self, text: str) -> str:
        """A notice as a cookie's value, which nobody else can make."""
        content = text[:NOTICE_CHARACTERS_MAX].encode()
        return base64.urlsafe_b64encode(self._mac(b"notice", content) + content).decode()

    def read_notice(self, value: str) -> str | None:
        """The notice in a cookie; None for anything we did not write."""
        try:
            sent = base64.urlsafe_b64decode(value.encode("ascii", "replace"))
        except (binascii.Error, ValueError):
            return None
        mac, content = sent[:_MAC_BYTES], sent[_MAC_BYTES:]
        return content.decode() if hmac.compare_digest(mac, self._mac(b"notice", content)) else None

    def _mac(self, purpose: bytes, content: bytes) -> bytes:
        return hmac.digest(self.key, purpose + b"\0" + content, hashlib.sha256)[:_MAC_BYTES]


def new_form_cookie() -> str:
    """A random value for FORM_COOKIE."""
    return secrets.token_hex(FORM_COOKIE_BYTES)


def same(given: str, expected: str) -> bool:
    """Whether two tokens are the same, in a time that tells nothing of where they differ."""
    return hmac.compare_digest(given.encode(), expected.encode())


def is_foreign(request: Request, public_url: str) -> bool:
    """Whether a browser says that a request was made by another site's page.

    A proxy in front may have put its own name for us into `Host`: then ours is that of the public URL.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return True
    origin = request.headers.get("origin")
    if origin is None or origin == "null":
        return False
    # Not read as a URL, which it need not be.
    return origin.partition("://")[2] not in {request.headers.get("host"), urlsplit(public_url).netloc}
