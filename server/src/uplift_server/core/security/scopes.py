"""Scopes: the permissions of an API key."""

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import Final

from uplift_server.core.problems import Problem


class Scope(StrEnum):
    """One permission of an account's key. Operator keys have all scopes."""

    EVENTS_READ = "events:read"
    EVENTS_WRITE = "events:write"
    ENDPOINTS_READ = "endpoints:read"
    ENDPOINTS_WRITE = "endpoints:write"
    DELIVERIES_READ = "deliveries:read"
    DELIVERIES_WRITE = "deliveries:write"
    SECRETS_READ = "secrets:read"
    SECRETS_WRITE = "secrets:write"
    LISTEN = "listen"


class AccountsScope(StrEnum):
    """A permission that only service keys can have, in addition to the scopes of an account's key."""

    ACCOUNTS_READ = "accounts:read"
    ACCOUNTS_WRITE = "accounts:write"


DEFAULT_SCOPES: Final = frozenset(Scope) - {Scope.EVENTS_WRITE, Scope.SECRETS_READ}
"""The scopes of a key that is created without a list of scopes.

Such a key can neither create events nor reveal secrets.
"""
SERVICE_SCOPES: Final[tuple[Scope | AccountsScope, ...]] = (*Scope, *AccountsScope)
"""The scopes that a service key can have."""


def check_scopes(
    texts: Iterable[str], field: str = "scopes", *, known: Collection[Scope | AccountsScope] = tuple(Scope)
) -> list[Problem]:
    """Return a problem for each string that is not a known scope. The problems are in the order of the strings."""
    names = frozenset(map(str, known))
    return [
        Problem(field, "scope_unknown", f"The scope {text[:100]!r} does not exist. Use one of {', '.join(known)}.")
        for text in texts
        if text not in names
    ]
