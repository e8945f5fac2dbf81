"""The headers an endpoint's owner may add to every request (contract, section 1, *custom*)."""

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
"""Shown instead of a value that looks secret; ASCII, since heads of requests are kept as bytes."""

_TOKEN = re.compile(r"(?![-_])[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Visible Latin-1, with spaces and tabs inside only (RFC 9110, section 5.5): what any server takes without surprise.
_VALUE = re.compile(r"[\x21-\x7e\xa0-\xff](?:[\x20-\x7e\t\xa0-\xff]*[\x21-\x7e\xa0-\xff])?")
# RFC 9110, section 7.6.1, and what older proxies treat likewise.
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
_OURS: Final = ("content-", "webhook-", "x-uplift-")
_SECRET_WORDS: Final = ("auth", "cookie", "credential", "key", "pass", "pwd", "secret", "signature", "token")


def check_headers(headers: Mapping[str, str]) -> list[Problem]:
    """Everything wrong with an endpoint's custom headers; one entry at most for each, at the field `headers.<name>`."""
    problems = []
    if len(headers) > CUSTOM_HEADERS_MAX:
        problems.append(
            Problem(
                "headers",
                "headers_too_many",
                f"An endpoint has at most {CUSTOM_HEADERS_MAX} headers of its own, not {len(headers)}. Remove some.",
            )
        )
    seen = set[str]()
    for name, value in headers.items():
        problem = _check_name(name, seen) or _check_value(name, value)
        if problem is not None:
            problems.append(problem)
        seen.add(name.lower())
    return problems


def mask(name: str, value: str) -> str:
    """The value of an owner's header as it may be shown: masked where its name speaks of a secret.

    For the owner's headers only: our own signatures are shown (contract, section 2, *Attempt*).
    """
    lower = name.lower()
    return MASKED if any(word in lower for word in _SECRET_WORDS) else value


def _check_name(name: str, seen: set[str]) -> Problem | None:
    field = f"headers.{name}"
    lower = name.lower()
    if len(name) > CUSTOM_HEADER_NAME_CHARACTERS_MAX:
        return Problem(
            field,
            "header_invalid",
            f"A name has at most {CUSTOM_HEADER_NAME_CHARACTERS_MAX} characters, this one {len(name)}. Shorten it.",
        )
    if not _TOKEN.fullmatch(name):
        return Problem(
            field,
            "header_invalid",
            "A name consists of letters, digits and hyphens, and begins with a letter or digit. Write it like X-Team.",
        )
    if lower in _RESERVED or lower in _HOP_BY_HOP or lower.startswith(_OURS):
        return Problem(field, "header_forbidden", "The server or the connection sets this header. Choose another name.")
    if lower in seen:
        return Problem(
            field, "header_duplicate", "The same name stands here twice; case does not tell names apart. Keep one."
        )
    return None


def _check_value(name: str, value: str) -> Problem | None:
    field = f"headers.{name}"
    if len(value) > CUSTOM_HEADER_VALUE_CHARACTERS_MAX:
        return Problem(
            field,
            "header_invalid",
            f"A value has at most {CUSTOM_HEADER_VALUE_CHARACTERS_MAX} characters, this one {len(value)}. Shorten it.",
        )
    if not value:
        return Problem(field, "header_invalid", "The value is empty. Enter a value, or remove the header.")
    if not _VALUE.fullmatch(value):
        return Problem(
            field,
            "header_invalid",
            "A value is one line of Latin-1 characters. Remove line breaks, control characters and spaces at its ends.",
        )
    return None
