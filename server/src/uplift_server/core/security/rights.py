"""Member roles, and the scopes and rights of each role.

A right is a permission that is not a scope. An API key has a right only if one of the key's scopes includes the right.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from uplift_server.core.named_codes import NamedCode
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope


class Role(NamedCode):
    """The role of a member in an account.

    The roles are ordered by their permissions, fewest first. The database stores the number of the role.
    """

    MEMBER = 0
    MANAGER = 1
    ADMIN = 2
    OWNER = 3


class Right(StrEnum):
    """A permission that is not a scope. Operators have all rights."""

    ENDPOINTS_TEST = "endpoints:test"
    KEYS_MANAGE = "keys:manage"
    MEMBERS_MANAGE = "members:manage"
    ACCOUNT_MANAGE = "account:manage"
    """Update the account's contacts."""
    AUDIT_READ = "audit:read"
    DATA_ERASE = "data:erase"
    """Erase events, and view the receipts of erasures."""


_READING: Final = frozenset({Scope.EVENTS_READ, Scope.ENDPOINTS_READ, Scope.DELIVERIES_READ})
_MANAGING: Final = _READING | {
    Scope.ENDPOINTS_WRITE,
    Scope.DELIVERIES_WRITE,
    Scope.SECRETS_READ,
    Scope.SECRETS_WRITE,
    Scope.LISTEN,
}
_ADMINISTERING: Final = frozenset(Right)

SCOPES_OF_ROLE: Final[Mapping[Role, frozenset[Scope]]] = MappingProxyType(
    {Role.MEMBER: _READING, Role.MANAGER: _MANAGING, Role.ADMIN: _MANAGING, Role.OWNER: _MANAGING}
)
"""The scopes of each role. No role has the scope to create events."""
RIGHTS_OF_ROLE: Final[Mapping[Role, frozenset[Right]]] = MappingProxyType(
    {
        Role.MEMBER: frozenset({Right.ENDPOINTS_TEST}),
        Role.MANAGER: frozenset({Right.ENDPOINTS_TEST}),
        Role.ADMIN: _ADMINISTERING,
        Role.OWNER: _ADMINISTERING,
    }
)
RIGHTS_OF_SCOPE: Final[Mapping[Right, Scope]] = MappingProxyType(
    {Right.ENDPOINTS_TEST: Scope.ENDPOINTS_WRITE, Right.AUDIT_READ: Scope.ENDPOINTS_READ}
)
"""The rights that an API key can have, each with the scope that includes the right."""
GUEST_ROLE_MAX: Final = Role.ADMIN
"""The highest role of a portal guest. A guest is anonymous and therefore cannot own an account."""


def roles_text() -> str:
    """Return the names of all roles as text for users."""
    return ", ".join(role.text for role in Role)


def parse_role(text: str) -> Role | None:
    """Return the role with this name, or None if there is no such role."""
    return next((role for role in Role if role.text == text), None)


def check_role(text: str, field: str = "role") -> Problem | None:
    """Return a problem if the text is not the name of a role."""
    if parse_role(text) is not None:
        return None
    return Problem(field, "role_unknown", f"The role {text[:40]!r} does not exist. Use one of {roles_text()}.")


def can_grant(own: Role, other: Role) -> bool:
    """Return whether a member who can manage members may grant a role, or may update or remove a member with the role.

    Members cannot grant a role above their own. Only owners can update or remove owners.
    """
    return other <= own
