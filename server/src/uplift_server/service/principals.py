"""Who asks: an operator, a program of one account, or a member of it; and for which account."""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from uplift_server.core import ids
from uplift_server.core.people.audit import Actor, ActorKind
from uplift_server.core.people.people import is_confirmed
from uplift_server.core.security.rights import RIGHTS_OF_ROLE, RIGHTS_OF_SCOPE, SCOPES_OF_ROLE, Right, Role
from uplift_server.core.security.scopes import Scope
from uplift_server.service.errors import AccountRequired, ConfirmationRequired, Forbidden


class Holder(Enum):
    """What kind of principal asks."""

    OPERATOR_KEY = "operator's key"
    ACCOUNT_KEY = "key"
    MEMBER = "member"
    OPERATOR_SESSION = "operator in the dashboard"


_ACTORS: Final = {
    Holder.OPERATOR_KEY: (ActorKind.OPERATOR, ids.KEY),
    Holder.OPERATOR_SESSION: (ActorKind.OPERATOR, ids.KEY),
    Holder.ACCOUNT_KEY: (ActorKind.KEY, ids.KEY),
    Holder.MEMBER: (ActorKind.MEMBER, ids.MEMBER),
}
_KEYS: Final = frozenset({Holder.OPERATOR_KEY, Holder.ACCOUNT_KEY})
PRINCIPALS_KEPT: Final = 256
"""Every event asks for its key's; a frozen dataclass of seven fields takes longer to make than to look up."""
_ASK: Final = "Ask an owner or admin of the account."


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a key, or whoever is signed in to the dashboard."""

    kind: Holder
    holder_id: bytes
    """Of the key (of an operator's session: the key behind it), or the member."""
    account_seq: int | None
    """The account the holder is bound to; None for an operator's."""
    scopes: frozenset[str]
    name: str = ""
    """What the key is called, or the member."""
    role: Role | None = None
    """A member's."""
    confirmed_at: int | None = None
    """When whoever is signed in gave the password last (Unix ms)."""

    @staticmethod
    @lru_cache(PRINCIPALS_KEPT)
    def of_key(key_id: bytes, account_seq: int | None, scopes: frozenset[str], name: str) -> "Principal":
        """The holder of a key."""
        kind = Holder.OPERATOR_KEY if account_seq is None else Holder.ACCOUNT_KEY
        return Principal(kind, key_id, account_seq, scopes, name)

    @classmethod
    def of_member(
        cls, member_id: bytes, account_seq: int, role: Role, name: str, confirmed_at: int | None
    ) -> "Principal":
        """A member who is signed in."""
        scopes = frozenset(map(str, SCOPES_OF_ROLE[role]))
        return cls(Holder.MEMBER, member_id, account_seq, scopes, name, role, confirmed_at)

    @property
    def is_operator(self) -> bool:
        """Whether this is an operator, who may do everything."""
        return self.account_seq is None

    @property
    def is_key(self) -> bool:
        """Whether a program asks."""
        return self.kind in _KEYS

    def allows(self, scope: Scope) -> bool:
        """Whether the holder's scopes include this one."""
        return self.account_seq is None or scope in self.scopes

    def has_right(self, right: Right) -> bool:
        """Whether the holder may do what no scope says: by the role of a member, or what comes with a key's scopes."""
        if self.account_seq is None:
            return True
        if self.role is not None:
            return right in RIGHTS_OF_ROLE[self.role]
        scope = RIGHTS_OF_SCOPE.get(right)
        return scope is not None and scope in self.scopes

    def require(self, scope: Scope) -> None:
        """Raise Forbidden unless the holder's scopes include this one."""
        if not self.allows(scope):
            if self.role is not None:
                raise self._beyond_role(scope)
            raise Forbidden(f"This key lacks the scope {scope}. Ask the operator for a key that has it.")

    def require_right(self, right: Right) -> None:
        """Raise Forbidden unless the holder has this right."""
        if self.has_right(right):
            return
        if self.role is not None:
            raise self._beyond_role(right)
        if right in RIGHTS_OF_SCOPE:
            self.require(RIGHTS_OF_SCOPE[right])
        self.require_operator()

    def require_operator(self) -> None:
        """Raise Forbidden unless this is an operator."""
        if not self.is_operator:
            raise Forbidden(
                "Only an operator's key (op_…) may do this." if self.is_key else "Only operators may do this."
            )

    def require_confirmed(self, now_ms: int) -> None:
        """Raise ConfirmationRequired if this is somebody at the dashboard who gave no password lately (Unix ms)."""
        if not self.is_key and not is_confirmed(self.confirmed_at, now_ms):
            raise ConfirmationRequired

    def _beyond_role(self, what: Scope | Right) -> Forbidden:
        assert self.role is not None
        return Forbidden(f"Your role, {self.role.text}, does not include this ({what}). {_ASK}")


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal and the account it acts for."""

    principal: Principal
    account_seq: int | None
    """None: an operator who acts for no account and sees all."""
    address: str | None = None
    """Where the request came from."""

    @property
    def actor(self) -> Actor:
        """The caller as the audit log names it."""
        holder = self.principal
        kind, prefix = _ACTORS[holder.kind]
        return Actor(kind, holder.name, ids.prefixed(prefix, holder.holder_id), self.address)

    @property
    def spans_accounts(self) -> bool:
        """Whether what the caller sees belongs to many accounts, and so must tell which."""
        return self.account_seq is None

    def require(self, scope: Scope) -> None:
        """Raise Forbidden unless the caller has this scope."""
        self.principal.require(scope)

    def require_right(self, right: Right) -> None:
        """Raise Forbidden unless the caller has this right."""
        self.principal.require_right(right)

    def require_operator(self) -> None:
        """Raise Forbidden unless the caller is an operator."""
        self.principal.require_operator()

    def require_confirmed(self, now_ms: int) -> None:
        """Raise ConfirmationRequired if the caller is at the dashboard and gave no password lately (Unix ms)."""
        self.principal.require_confirmed(now_ms)

    def one_account(self) -> int:
        """The account the caller acts for. Raises AccountRequired."""
        if self.account_seq is None:
            raise AccountRequired
        return self.account_seq
