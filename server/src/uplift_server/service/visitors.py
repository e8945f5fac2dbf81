"""Whoever is signed in to the dashboard, and for which accounts they act."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from uplift_server.core import ids
from uplift_server.core.people.people import is_confirmed
from uplift_server.core.security.rights import Role
from uplift_server.service.errors import NotFound
from uplift_server.service.principals import Caller, Principal
from uplift_server.service.rejections import not_found, parse_id
from uplift_server.store.records import Account, Person


@dataclass(frozen=True, slots=True)
class Membership:
    """One of the accounts that somebody who is signed in may see."""

    account: Account
    role: Role
    member_id: bytes


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever is signed in."""

    session_id: bytes
    person: Person | None
    """None: an operator."""
    memberships: tuple[Membership, ...]
    confirmed_at: int | None
    """When the password was given last (Unix ms)."""
    csrf_token: str
    """What every form of this session carries."""
    is_portal: bool = False
    """Whether a portal link let them in, perhaps into a frame of the operator's own site."""
    _operator: Principal | None = field(default=None, repr=False)
    _accounts: Mapping[bytes, Account] = field(default_factory=dict, repr=False, compare=False)
    """All accounts by their ids, for operators."""

    @property
    def name(self) -> str:
        """By what pages call them."""
        return self.person.title if self.person is not None else "operator"

    @property
    def has_password(self) -> bool:
        """Whether there is something to give where confirmation is wanted; an operator gives the operator's key."""
        return self.person is None or self.person.password_hash is not None

    def is_confirmed(self, now_ms: int) -> bool:
        """Whether secrets may be shown now (Unix ms), without asking for the password again."""
        return is_confirmed(self.confirmed_at, now_ms)

    def caller(self, account: str, address: str | None) -> Caller:
        """Acts for an account (its public id). Raises NotFound, also for one that is none of theirs."""
        account_id = parse_id(ids.ACCOUNT, account, "account")
        if self._operator is not None:
            found = self._accounts.get(account_id)
            if found is not None:
                return Caller(self._operator, found.seq, address)
        for membership in self.memberships:
            if membership.account.id == account_id:
                return Caller(self._member(membership), membership.account.seq, address)
        raise not_found("account", account)

    def operator(self, address: str | None) -> Caller:
        """Spans all accounts. Raises NotFound for members."""
        if self._operator is None:
            raise NotFound("There is no such page.")
        return Caller(self._operator, None, address)

    def _member(self, membership: Membership) -> Principal:
        assert self.person is not None, "operators are members of nothing"
        name, account_seq = self.person.title, membership.account.seq
        return Principal.of_member(membership.member_id, account_seq, membership.role, name, self.confirmed_at)
