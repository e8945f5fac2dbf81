"""The caller of a use case: a principal (operator, API key or member) and the account it acts for."""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from uplift_server.core import ids
from uplift_server.core.people.audit import Actor, ActorKind
from uplift_server.core.people.people import is_confirmed
from uplift_server.core.security.rights import RIGHTS_OF_ROLE, RIGHTS_OF_SCOPE, SCOPES_OF_ROLE, Right, Role
from uplift_server.core.security.scopes import AccountsScope, Scope
from uplift_server.service.errors import AccountRequired, ConfirmationRequired, Forbidden


class PrincipalKind(Enum):
    """The kind of key or session that a principal has."""

    OPERATOR_KEY = "operator's key"
    ACCOUNT_KEY = "key"
    SERVICE_KEY = "service key"
    MEMBER = "member"
    OPERATOR_SESSION = "operator in the dashboard"


_ACTORS: Final = {
    PrincipalKind.OPERATOR_KEY: (ActorKind.OPERATOR, ids.KEY),
    PrincipalKind.OPERATOR_SESSION: (ActorKind.OPERATOR, ids.KEY),
    PrincipalKind.ACCOUNT_KEY: (ActorKind.KEY, ids.KEY),
    # Service keys are for the operator's programs, whose IP addresses accounts must not see.
    PrincipalKind.SERVICE_KEY: (ActorKind.OPERATOR, ids.KEY),
    PrincipalKind.MEMBER: (ActorKind.MEMBER, ids.MEMBER),
}
_KEYS: Final = frozenset({PrincipalKind.OPERATOR_KEY, PrincipalKind.ACCOUNT_KEY, PrincipalKind.SERVICE_KEY})
_OPERATORS: Final = (PrincipalKind.OPERATOR_KEY, PrincipalKind.OPERATOR_SESSION)
PRINCIPALS_CACHED_MAX: Final = 256
"""The maximum number of cached principals.

The server needs a principal for each request, and a lookup in the cache is faster than creating a principal.
"""
READ_ONLY: Final = "You are signed in read-only. Sign in with the operator key, or with a link that can make changes."
READ_ONLY_SCOPES: Final = frozenset(map(str, SCOPES_OF_ROLE[Role.MEMBER]))
"""The scopes of a read-only operator."""
_OPERATOR_KEY_REQUIRED: Final = "This call requires an operator key (op_…)."
_ASK_ADMIN: Final = "Ask an owner or admin of the account for a higher role."


@dataclass(frozen=True, slots=True)
class Principal:
    """An API key, or a person who is signed in to the dashboard."""

    kind: PrincipalKind
    id: bytes
    """The ID of the member or the key.

    For an operator's session, it is the ID of the operator's key, or an ID that is derived from `subject`.
    """
    account_seq: int | None
    """The sequence number of the principal's account.

    None for operators and service keys, which act for all accounts.
    """
    scopes: frozenset[str]
    name: str = ""
    """The name of the key or the member."""
    role: Role | None = None
    """The role of the member. None for other principals."""
    confirmed_at: int | None = None
    """When the person last confirmed their identity by signing in, by password, or through the provider (Unix ms)."""
    is_read_only: bool = False
    """Whether the principal is an operator who can only read."""
    subject: str | None = None
    """The operator's ID at the identity provider. None if the operator did not use single sign-on."""

    @staticmethod
    @lru_cache(PRINCIPALS_CACHED_MAX)
    def of_key(key_id: bytes, account_seq: int | None, scopes: frozenset[str], name: str) -> "Principal":
        """Return the principal of a key that belongs to an account or to an operator."""
        kind = PrincipalKind.OPERATOR_KEY if account_seq is None else PrincipalKind.ACCOUNT_KEY
        return Principal(kind, key_id, account_seq, scopes, name)

    @staticmethod
    @lru_cache(PRINCIPALS_CACHED_MAX)
    def of_service_key(key_id: bytes, scopes: frozenset[str], name: str) -> "Principal":
        """Return the principal of a service key."""
        return Principal(PrincipalKind.SERVICE_KEY, key_id, None, scopes, name)

    @classmethod
    def of_member(
        cls, member_id: bytes, account_seq: int, role: Role, name: str, confirmed_at: int | None
    ) -> "Principal":
        """Return the principal of a member who is signed in."""
        scopes = frozenset(map(str, SCOPES_OF_ROLE[role]))
        return cls(PrincipalKind.MEMBER, member_id, account_seq, scopes, name, role, confirmed_at)

    @property
    def is_operator(self) -> bool:
        """Whether the principal is an operator. An operator has all permissions unless `is_read_only` is set."""
        return self.account_seq is None and self.kind in _OPERATORS

    @property
    def is_key(self) -> bool:
        """Whether the principal is an API key."""
        return self.kind in _KEYS

    @property
    def is_service_key(self) -> bool:
        """Whether the principal is a service key, which acts within its scopes for all accounts."""
        return self.kind is PrincipalKind.SERVICE_KEY

    def allows(self, scope: Scope | AccountsScope) -> bool:
        """Return whether the principal has this scope."""
        return scope in self.scopes or (self.is_operator and not self.is_read_only)

    def has_right(self, right: Right) -> bool:
        """Return whether the principal has this right.

        Members have the rights of their role, and keys have the rights of their scopes. Operators have all rights, but
        read-only operators have only AUDIT_READ.
        """
        if self.is_operator:
            return not self.is_read_only or right is Right.AUDIT_READ
        if self.role is not None:
            return right in RIGHTS_OF_ROLE[self.role]
        scope = RIGHTS_OF_SCOPE.get(right)
        return scope is not None and scope in self.scopes

    def require(self, scope: Scope | AccountsScope) -> None:
        """Raise Forbidden unless the principal has this scope."""
        if not self.allows(scope):
            if self.is_read_only:
                raise Forbidden(READ_ONLY)
            if self.role is not None:
                raise self._role_error(scope)
            raise Forbidden(f"The API key does not have the scope {scope}. {self._key_source(scope)}")

    def require_right(self, right: Right) -> None:
        """Raise Forbidden unless the principal has this right."""
        if self.has_right(right):
            return
        if self.is_read_only:
            raise Forbidden(READ_ONLY)
        if self.role is not None:
            raise self._role_error(right)
        if right in RIGHTS_OF_SCOPE:
            self.require(RIGHTS_OF_SCOPE[right])
        self.require_operator()

    def require_operator(self, *, reads: bool = False) -> None:
        """Raise Forbidden unless this principal is an operator.

        Read-only operators are allowed only if `reads` is set.
        """
        if self.is_read_only and not reads:
            raise Forbidden(READ_ONLY)
        if self.is_operator:
            return
        if self.is_service_key:
            raise Forbidden(f"{_OPERATOR_KEY_REQUIRED} Do not use a service key (svc_…).")
        raise Forbidden(
            _OPERATOR_KEY_REQUIRED if self.is_key else "This action requires an operator. Ask the operator."
        )

    def require_all_accounts(self, scope: Scope | AccountsScope, *, reads: bool = False) -> None:
        """Raise Forbidden unless this principal is an operator, or a service key with this scope.

        Read-only operators are allowed only if `reads` is set.
        """
        if self.is_service_key:
            self.require(scope)
        elif self.is_key and not self.is_operator:
            raise Forbidden(f"This call requires an operator key (op_…), or a service key (svc_…) with {scope}.")
        else:
            self.require_operator(reads=reads)

    def require_confirmed(self, now_ms: int) -> None:
        """Raise ConfirmationRequired for a signed-in person who has not confirmed their identity recently."""
        if not self.is_key and not is_confirmed(self.confirmed_at, now_ms):
            raise ConfirmationRequired

    def _role_error(self, what: Scope | AccountsScope | Right) -> Forbidden:
        assert self.role is not None
        owner_has = what in SCOPES_OF_ROLE[Role.OWNER] or what in RIGHTS_OF_ROLE[Role.OWNER]
        remedy = _ASK_ADMIN if owner_has else "Ask the operator."
        return Forbidden(f"Your role, {self.role.text}, does not include the permission {what}. {remedy}")

    def _key_source(self, scope: Scope | AccountsScope) -> str:
        """Return the text that explains how to get a key with a scope."""
        if self.kind is PrincipalKind.ACCOUNT_KEY and scope in SCOPES_OF_ROLE[Role.OWNER]:
            return "An owner or admin of the account can create a key with this scope in the dashboard."
        return "Ask the operator for a key with this scope."


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal and the account it acts for."""

    principal: Principal
    account_seq: int | None
    """The sequence number of the account that the principal acts for.

    None for an operator or a service key that sees all accounts.
    """
    address: str | None = None
    """The IP address of the client that sent the request."""

    @property
    def actor(self) -> Actor:
        """The caller as an actor in the audit log."""
        principal = self.principal
        kind, prefix = _ACTORS[principal.kind]
        name = f"service key {principal.name}" if principal.is_service_key else principal.name
        actor_id = ids.prefixed(prefix, principal.id) if principal.subject is None else f"oidc:{principal.subject}"
        return Actor(kind, name, actor_id, self.address)

    @property
    def spans_accounts(self) -> bool:
        """Whether the caller sees objects from several accounts."""
        return self.account_seq is None

    def require(self, scope: Scope | AccountsScope) -> None:
        """Raise Forbidden unless the caller has this scope."""
        self.principal.require(scope)

    def require_right(self, right: Right) -> None:
        """Raise Forbidden unless the caller has this right."""
        self.principal.require_right(right)

    def require_operator(self, *, reads: bool = False) -> None:
        """Raise Forbidden unless the caller is an operator. Read-only operators are allowed only if `reads` is set."""
        self.principal.require_operator(reads=reads)

    def require_all_accounts(self, scope: Scope | AccountsScope, *, reads: bool = False) -> None:
        """Raise Forbidden unless the caller is an operator, or a service key with this scope."""
        self.principal.require_all_accounts(scope, reads=reads)

    def require_confirmed(self, now_ms: int) -> None:
        """Raise ConfirmationRequired for a signed-in person who has not confirmed their identity recently."""
        self.principal.require_confirmed(now_ms)

    def require_account(self) -> int:
        """Return the account that the caller acts for. Raises AccountRequired."""
        if self.account_seq is None:
            raise AccountRequired
        return self.account_seq
