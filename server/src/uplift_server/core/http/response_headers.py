"""Masks secrets in the response headers of a receiver.

The server stores the headers as received. The API and the dashboard show masked headers.
"""

import re
from typing import Final

from uplift_server.core.http.headers import MASKED

_WITH_URLS: Final = frozenset({"content-location", "link", "location", "refresh"})
_SECRET: Final = re.compile(r"auth|cookie|credential|csrf|jwt|key|password|secret|session|signature|token|xsrf")
_NOT_SECRET: Final = frozenset({"proxy-authenticate", "www-authenticate"})
_USER: Final = re.compile(r"//[^/?#@\s]*@")
_QUERY: Final = re.compile(r"([?#])[^\s<>\"']*")


def mask_urls(text: str) -> str:
    """Mask the user names, passwords, queries and fragments of the URLs in a string."""
    return _QUERY.sub(rf"\1{MASKED}", _USER.sub(f"//{MASKED}@", text))


def mask_response_headers(head: bytes) -> bytes:
    """Mask response headers whose names indicate a secret, and the parts of URLs that can contain a secret."""
    status_line, *lines = head.split(b"\r\n")
    return b"\r\n".join([status_line, *map(_masked_line, lines)])


def _masked_line(line: bytes) -> bytes:
    name, separator, value = line.decode("latin-1").partition(":")
    lower = name.strip().lower()
    if not separator:
        return line
    if lower in _WITH_URLS:
        return f"{name}:{mask_urls(value)}".encode("latin-1")
    if lower not in _NOT_SECRET and _SECRET.search(lower):
        return f"{name}: {MASKED}".encode("latin-1")
    return f"{name}:{mask_urls(value)}".encode("latin-1") if "://" in value else line
