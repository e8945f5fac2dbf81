"""Visitors of the dashboard: people who are signed in, and the accounts they can use."""

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
    """An account that a visitor can use, and the visitor's role as a member."""

    account: Account
    role: Role
    member_id: bytes


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person or an operator who is signed in to the dashboard."""

    session_id: bytes
    person: Person | None
    """The person. None for an operator."""
    memberships: tuple[Membership, ...]
    confirmed_at: int | None
    """When the person last confirmed their identity by signing in, by password, or through the provider (Unix ms)."""
    csrf_token: str
    """The token that each form in this session contains."""
    is_portal: bool = False
    """Whether the session began with a portal link. If so, the operator's site can embed the pages in a frame."""
    subject: str | None = None
    """The person's ID at the identity provider, if the session began with single sign-on."""
    _operator: Principal | None = field(default=None, repr=False)
    _accounts: Mapping[bytes, Account] = field(default_factory=dict, repr=False, compare=False)
    """All accounts by account ID, if the visitor is an operator. Otherwise empty."""

    @property
    def name(self) -> str:
        """The visitor's name as pages show it."""
        if self.person is not None:
            return self.person.title
        operator = self._operator
        name = "operator" if operator is None or operator.subject is None else operator.name
        return f"{name} (read-only)" if self.is_read_only else name

    @property
    def is_read_only(self) -> bool:
        """Whether the visitor is an operator who can only read."""
        return self._operator is not None and self._operator.is_read_only

    @property
    def has_password(self) -> bool:
        """Whether the visitor can confirm their identity with a password, or with an operator key."""
        return self.subject is None if self.person is None else self.person.password_hash is not None

    def is_confirmed(self, now_ms: int) -> bool:
        """Return whether the visitor confirmed their identity recently enough to see secrets."""
        return is_confirmed(self.confirmed_at, now_ms)

    def caller(self, account: str, address: str | None) -> Caller:
        """Return the visitor as a caller who acts for the account with this public ID.

        Raises NotFound if no such account exists or the visitor has no access to it.
        """
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
        """Return the operator as a caller who acts for all accounts. Raises NotFound for members."""
        if self._operator is None:
            raise NotFound("This page does not exist. Check the URL.")
        return Caller(self._operator, None, address)

    def _member(self, membership: Membership) -> Principal:
        assert self.person is not None, "operators have no memberships"
        name, account_seq = self.person.title, membership.account.seq
        return Principal.of_member(membership.member_id, account_seq, membership.role, name, self.confirmed_at)
