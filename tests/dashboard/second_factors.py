"""Helpers to turn on the second factor of a visitor, with the codes that an authenticator app would show."""

import re
import time
from base64 import b32decode

from tests.dashboard.visitors import Guest

from uplift_server.core.security import totp

PATH = "/you/second-factor"
_APP = re.compile(r'name="app" value="([^"]+)"')
_KEY = re.compile(r"<code>([A-Z2-7]{32})</code>")
_RECOVERY_CODE = re.compile(r"(?:[a-z2-7]{4}-){3}[a-z2-7]{4}")


def current_code(key: str) -> str:
    """Return the current code of an app with this key."""
    return totp.code_at(b32decode(key), totp.step_at(time.time_ns() // 1_000_000))


def setup_fields(guest: Guest, password: str) -> dict[str, str]:
    """Return the fields that turn on the second factor of a guest."""
    html = guest.get(PATH).html
    app, key = _APP.search(html), _KEY.search(html)
    assert app is not None
    assert key is not None
    return {"app": app[1], "code": current_code(key[1]), "password": password}


def turn_on(guest: Guest, password: str) -> list[str]:
    """Turn on the second factor of a guest, and return the recovery codes."""
    return recovery_codes(guest.post(PATH, **setup_fields(guest, password)).text)


def recovery_codes(text: str) -> list[str]:
    """Return the recovery codes on a page."""
    return _RECOVERY_CODE.findall(text)
