"""Who asks: an operator, or a program of one account; and for which account."""

from dataclasses import dataclass

from uplift_server.core import ids
from uplift_server.core.audit import Actor, ActorKind
from uplift_server.core.scopes import Scope
from uplift_server.service.errors import AccountRequired, Forbidden


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a key."""

    key_id: bytes
    account_seq: int | None
    """The account the key is bound to; None for an operator's."""
    scopes: frozenset[str]
    name: str = ""
    """What the key is called."""

    @property
    def is_operator(self) -> bool:
        """Whether the key is an operator's, who may do everything."""
        return self.account_seq is None

    def allows(self, scope: Scope) -> bool:
        """Whether the key's scopes include this one."""
        return self.account_seq is None or scope in self.scopes

    def require(self, scope: Scope) -> None:
        """Raise Forbidden unless the key's scopes include this one."""
        if not self.allows(scope):
            raise Forbidden(f"This key lacks the scope {scope}. Ask the operator for a key that has it.")

    def require_operator(self) -> None:
        """Raise Forbidden unless the key is an operator's."""
        if not self.is_operator:
            raise Forbidden("Only an operator's key (op_…) may do this.")


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
        kind = ActorKind.OPERATOR if holder.is_operator else ActorKind.KEY
        return Actor(kind, holder.name, ids.prefixed(ids.KEY, holder.key_id), self.address)

    @property
    def spans_accounts(self) -> bool:
        """Whether what the caller sees belongs to many accounts, and so must tell which."""
        return self.account_seq is None

    def require(self, scope: Scope) -> None:
        """Raise Forbidden unless the caller has this scope."""
        self.principal.require(scope)

    def require_operator(self) -> None:
        """Raise Forbidden unless the caller is an operator."""
        self.principal.require_operator()

    def one_account(self) -> int:
        """The account the caller acts for. Raises AccountRequired."""
        if self.account_seq is None:
            raise AccountRequired
        return self.account_seq
