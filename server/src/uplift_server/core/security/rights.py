"""What the members of an account may do: their roles, and the table of what each role includes.

Most of it is what an account's keys may do, and is said in the same scopes; a right is what no scope says.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from uplift_server.core.named_codes import NamedCode
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope


class Role(NamedCode):
    """A member's place in an account, from the least to the most. The number is what the store keeps."""

    MEMBER = 0
    MANAGER = 1
    ADMIN = 2
    OWNER = 3


class Right(StrEnum):
    """A permission that no scope says. Operators have them all."""

    ENDPOINTS_TEST = "endpoints:test"
    KEYS_MANAGE = "keys:manage"
    MEMBERS_MANAGE = "members:manage"
    ACCOUNT_MANAGE = "account:manage"
    """To change the account's contacts."""
    AUDIT_READ = "audit:read"


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
"""Nobody of an account may invent events: those are the operator's word."""
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
"""The rights that a key has with a scope; it never has any other."""
GUEST_ROLE_MAX: Final = Role.ADMIN
"""A guest of a portal link is nobody by name, and so cannot own an account."""


def roles_text() -> str:
    """All roles, as people read them."""
    return ", ".join(role.text for role in Role)


def parse_role(text: str) -> Role | None:
    """The role of this name."""
    return next((role for role in Role if role.text == text), None)


def check_role(text: str, field: str = "role") -> Problem | None:
    """What is wrong with the name of a role, if anything."""
    if parse_role(text) is not None:
        return None
    return Problem(field, "role_unknown", f"{text[:40]!r} is no role. The roles are {roles_text()}.")


def can_grant(own: Role, other: Role) -> bool:
    """Whether a member who may manage members may give this role, or change or remove somebody who has it.

    Nobody lifts anybody above themselves, and only owners touch owners.
    """
    return other <= own
