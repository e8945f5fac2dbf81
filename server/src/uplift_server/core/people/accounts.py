"""Checks of account names and email addresses."""

import re

from uplift_server.core.limits import EMAIL_CHARACTERS_MAX, NAME_CHARACTERS_MAX
from uplift_server.core.problems import Problem

_EMAIL_LOCAL_CHARACTERS_MAX = 64
# Not allowed in names: control characters, line and paragraph separators, bidirectional marks, lone surrogates.
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Addresses that mail servers accept in practice: a dot-atom and a domain name (RFC 5321, section 4.1.2), unquoted.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@{_LABEL}(?:\.{_LABEL})*")


def check_name(text: str, field: str = "name") -> Problem | None:
    """Return the problem with the name of an account, a key or a person, if any."""
    if not text.strip():
        return Problem(field, "name_invalid", "The name is empty. Enter a name.")
    if len(text) > NAME_CHARACTERS_MAX:
        return Problem(
            field,
            "name_invalid",
            f"The name has {len(text)} characters. Use at most {NAME_CHARACTERS_MAX}.",
        )
    if _NOT_IN_NAMES.search(text):
        return Problem(field, "name_invalid", "The name contains control characters or line breaks. Remove them.")
    return None


def check_email(text: str, field: str = "email") -> Problem | None:
    """Return the problem with an email address, if any."""
    match = _EMAIL.fullmatch(text)
    if match is None or len(text) > EMAIL_CHARACTERS_MAX or len(match[1]) > _EMAIL_LOCAL_CHARACTERS_MAX:
        return Problem(
            field, "email_invalid", "The email address is not valid. Use an address such as coach@example.com."
        )
    return None
