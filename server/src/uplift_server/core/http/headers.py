"""Rules for the custom headers of an endpoint."""

import re
from collections.abc import Mapping
from typing import Final

from uplift_server.core.limits import (
    CUSTOM_HEADER_NAME_CHARACTERS_MAX,
    CUSTOM_HEADER_VALUE_CHARACTERS_MAX,
    CUSTOM_HEADERS_MAX,
)
from uplift_server.core.problems import Problem

MASKED: Final = "********"
"""Text that replaces the value of a custom header on pages and in storage.

The text is ASCII, because headers are bytes.
"""

_TOKEN = re.compile(r"(?![-_])[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Visible Latin-1 characters, with spaces and tabs only between them (RFC 9110, section 5.5).
_VALUE = re.compile(r"[\x21-\x7e\xa0-\xff](?:[\x20-\x7e\t\xa0-\xff]*[\x21-\x7e\xa0-\xff])?")
# Headers that apply to a single connection (RFC 9110, section 7.6.1), including older names.
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_RESERVED: Final = frozenset({"host", "user-agent"})
_OWN_PREFIXES: Final = ("content-", "webhook-", "x-uplift-")
# Standard headers (RFC 9110, 9111, 7240, 9218) that cannot contain a secret. All other headers can contain secrets.
_NOT_SECRET: Final = frozenset(
    {
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "pragma",
        "prefer",
        "priority",
        "user-agent",
    }
)


def check_headers(headers: Mapping[str, str]) -> list[Problem]:
    """Return the problems with an endpoint's custom headers.

    A header has at most one problem, whose field is `headers.<name>`. If there are too many headers, the result
    contains a problem whose field is `headers`.
    """
    problems = [problem for problem in [check_header_count(headers)] if problem is not None]
    seen = set[str]()
    for name, value in headers.items():
        problem = _check_name(name, seen) or _check_value(name, value)
        if problem is not None:
            problems.append(problem)
        seen.add(name.lower())
    return problems


def check_header_count(headers: Mapping[str, str]) -> Problem | None:
    """Return a problem if an endpoint has too many custom headers."""
    if len(headers) <= CUSTOM_HEADERS_MAX:
        return None
    text = f"The endpoint has {len(headers)} custom headers. Use at most {CUSTOM_HEADERS_MAX}."
    return Problem("headers", "headers_too_many", text)


def merge_headers(stored: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Apply changes to custom headers. None removes a header. Names are case-insensitive."""
    changed = {name.lower() for name in changes}
    kept = {name: value for name, value in stored.items() if name.lower() not in changed}
    return {**kept, **{name: value for name, value in changes.items() if value is not None}}


def mask(name: str, value: str) -> str:
    """Return the text to show or store instead of a custom header's value.

    Return the value itself if the header is a standard header that cannot contain a secret. Otherwise, return MASKED.
    """
    return value if name.lower() in _NOT_SECRET else MASKED


def is_reserved(name: str) -> bool:
    """Return whether the server sets this header itself or the header controls the connection.

    Endpoints cannot set such headers.
    """
    lower = name.lower()
    return lower in _RESERVED or lower in _HOP_BY_HOP or lower.startswith(_OWN_PREFIXES)


def _check_name(name: str, seen: set[str]) -> Problem | None:
    field = f"headers.{name}"
    lower = name.lower()
    if len(name) > CUSTOM_HEADER_NAME_CHARACTERS_MAX:
        return Problem(
            field,
            "header_invalid",
            f"The header name has {len(name)} characters. Use at most {CUSTOM_HEADER_NAME_CHARACTERS_MAX}.",
        )
    if not _TOKEN.fullmatch(name):
        return Problem(
            field,
            "header_invalid",
            "The header name is not valid. Use only letters, digits and hyphens, as in X-Team.",
        )
    if is_reserved(name):
        return Problem(field, "header_forbidden", "The server sets this header. Use another name.")
    if lower in seen:
        return Problem(
            field, "header_duplicate", "The header appears more than once (names are case-insensitive). Keep only one."
        )
    return None


def _check_value(name: str, value: str) -> Problem | None:
    field = f"headers.{name}"
    if len(value) > CUSTOM_HEADER_VALUE_CHARACTERS_MAX:
        return Problem(
            field,
            "header_invalid",
            f"The header value has {len(value)} characters. Use at most {CUSTOM_HEADER_VALUE_CHARACTERS_MAX}.",
        )
    if not value:
        return Problem(field, "header_invalid", "The header value is empty. Add a value, or remove the header.")
    if not _VALUE.fullmatch(value):
        return Problem(
            field,
            "header_invalid",
            "The header value is not valid. Use one line of Latin-1 characters, without control characters and without "
            "spaces at the start or end.",
        )
    return None
