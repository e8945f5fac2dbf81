"""Sign-ins that still require a second-factor code.

Only this server can decrypt the cookie that contains the sign-in.
"""

from typing import Final

import msgspec
from starlette.responses import Response

from uplift_server.dashboard.encrypted_cookies import EncryptedCookies
from uplift_server.dashboard.visit import Visit, link
from uplift_server.service.second_factors import PENDING_MS, PendingSignIn

CODE_PATH: Final = "/sign-in/code"
_COOKIE: Final = "uplift_pending"
_PURPOSE: Final = b"pending sign-in"


def ask_code(visit: Visit, pending: PendingSignIn, page: str) -> Response:
    """Redirect to the page that asks for the second-factor code.

    After the visitor enters a valid code, the browser opens `page`.
    """
    keep_pending(visit, pending)
    return visit.leave(link(CODE_PATH, next=page))


def keep_pending(visit: Visit, pending: PendingSignIn) -> None:
    """Store a pending sign-in in a response cookie."""
    visit.set_cookie(_COOKIE, _cookies(visit).encrypt(msgspec.json.encode(pending)), seconds=PENDING_MS // 1000)


def read_pending(visit: Visit) -> PendingSignIn | None:
    """Return the pending sign-in from the cookie, if any. The sign-in may have expired."""
    cookie = visit.cookie(_COOKIE)
    content = None if cookie is None else _cookies(visit).decrypt(cookie)
    return None if content is None else msgspec.json.decode(content, type=PendingSignIn)


def forget_pending(visit: Visit) -> None:
    """Tell the browser to delete the cookie that contains the pending sign-in."""
    visit.set_cookie(_COOKIE, "", seconds=0)


def _cookies(visit: Visit) -> EncryptedCookies:
    return EncryptedCookies(visit.dashboard.safety.key, _PURPOSE)
