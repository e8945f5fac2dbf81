"""Scopes: the permissions of an account's API key."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from uplift_server.core.problems import Problem


class Scope(StrEnum):
    """One permission of an account's key. Operator keys have all of them."""

    EVENTS_READ = "events:read"
    EVENTS_WRITE = "events:write"
    ENDPOINTS_READ = "endpoints:read"
    ENDPOINTS_WRITE = "endpoints:write"
    DELIVERIES_READ = "deliveries:read"
    DELIVERIES_WRITE = "deliveries:write"
    SECRETS_READ = "secrets:read"
    SECRETS_WRITE = "secrets:write"
    LISTEN = "listen"


DEFAULT_SCOPES: Final = frozenset(Scope) - {Scope.EVENTS_WRITE, Scope.SECRETS_READ}
"""The scopes of a key that is created without a list. It can neither create events nor read secrets."""


def check_scopes(texts: Iterable[str], field: str = "scopes") -> list[Problem]:
    """Return a problem for each text that is not a scope, in order."""
    known = frozenset(Scope)
    return [
        Problem(field, "scope_unknown", f"The scope {text!r} does not exist. Use one of {', '.join(Scope)}.")
        for text in texts
        if text not in known
    ]
