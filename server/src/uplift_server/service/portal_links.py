"""One-time links to the dashboard, for account members and for operators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from uplift_server.core import ids
from uplift_server.core.people.accounts import check_email
from uplift_server.core.people.people import LINK_TTL_MS, normalize_email
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import GUEST_ROLE_MAX, Role, check_role, parse_role
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.dashboard_links import DashboardLinks
from uplift_server.service.fields import UNSET, Unset, given_or_none
from uplift_server.service.idempotency import IdempotencyKey, check_idempotency_key, create_once, idempotent_request
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, parse_id, require_valid
from uplift_server.store import audit, idempotency, sessions
from uplift_server.store.contract import Transaction
from uplift_server.store.records import Account, Link, Page

_KIND: Final = "portal link"
_OPERATOR_KIND: Final = "sign-in link"


@dataclass(frozen=True, slots=True)
class LinkDraft:
    """The portal link fields in a request."""

    email: str | Unset | None = UNSET
    role: str | Unset | None = UNSET

    def problems(self) -> list[Problem | None]:
        """Return the problems with the portal link fields."""
        email, role = given_or_none(self.email), given_or_none(self.role)
        found = [None if email is None else check_email(email.strip()), None if role is None else check_role(role)]
        if email is None and self.role_or_default() > GUEST_ROLE_MAX:
            text = (
                f"A portal guest cannot have the role {self.role_or_default().text}. Use {GUEST_ROLE_MAX.text} or a"
                " lower role, or send the person's `email`."
            )
            found.append(Problem("role", "role_not_for_guests", text))
        return found

    def normalized_email(self) -> str | None:
        """Return the email in the normalized form that identifies a person, or None if the link has no email."""
        email = given_or_none(self.email)
        return None if email is None else normalize_email(email)

    def role_or_default(self) -> Role:
        """Return the role for a new member. The default is the lowest role."""
        role = given_or_none(self.role)
        return (None if role is None else parse_role(role)) or Role.MEMBER


@dataclass(frozen=True, slots=True)
class ShownLink:
    """A new link and its expiration time, as the link's creator sees them."""

    url: str = field(repr=False)
    expires_at: int
    repeated: bool
    """Whether an earlier request created the link. If so, a person may already have used it."""
    link: Link | None = None
    """The stored link. None for a password reset link, which the server does not store."""


class PortalLinks:
    """Creates, lists and revokes one-time links."""

    def __init__(self, context: ServiceContext, links: DashboardLinks) -> None:
        self._context = context
        self._links = links

    async def create(
        self,
        caller: Caller,
        account: str,
        draft: LinkDraft,
        *,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
    ) -> ShownLink:
        """Create a link to an account's dashboard for one person. Raises NotFound."""
        caller.require_operator()
        owner = self._context.find_account(caller, account)
        require_valid([*problems, *draft.problems(), check_idempotency_key(idempotency_key)])
        request = idempotent_request(idempotency_key, owner.seq, _KIND)
        link = Link(
            self._context.new_id(), owner.seq, draft.normalized_email(), draft.role_or_default(), None, self._ends_at()
        )
        details = {"email": link.email, "role": link.role.text}
        return await self._context.run_shielded(self._create(caller, link, owner, request, details))

    async def create_for_operator(
        self,
        caller: Caller,
        *,
        is_read_only: bool = False,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
    ) -> ShownLink:
        """Create a link that signs an operator in. If the caller's key is revoked, the link stops working."""
        caller.require_operator()
        require_valid([*problems, check_idempotency_key(idempotency_key)])
        request = idempotent_request(idempotency_key, idempotency.NO_ACCOUNT, _OPERATOR_KIND)
        key_digest = self._key_digest(caller)
        link = Link(self._context.new_id(), None, None, Role.MEMBER, key_digest, self._ends_at(), is_read_only)
        details = {"read_only": True} if is_read_only else {}
        return await self._context.run_shielded(self._create(caller, link, None, request, details))

    async def page(
        self, caller: Caller, account: str, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[Link]:
        """Return a page of the account's portal links that are still usable. Raises NotFound."""
        caller.require_operator(reads=True)
        owner = self._context.find_account(caller, account)
        request = self._context.page_request(listing, sessions.LINK_KEY_NUMBERS, problems)
        now = self._context.now()
        return await self._context.database.read(lambda c: sessions.page_of_links(c, owner.seq, request, now=now))

    async def revoke(self, caller: Caller, account: str, link: str) -> None:
        """Revoke an unused portal link. Raises NotFound."""
        caller.require_operator()
        owner = self._context.find_account(caller, account)
        link_id, now = parse_id(ids.LINK, link, _KIND), self._context.now()

        def revoke(connection: Transaction) -> Link | None:
            revoked = sessions.revoke_link(connection, owner.seq, link_id, now=now)
            if revoked is not None:
                details = {"email": revoked.email, "role": revoked.role.text}
                audit.add(connection, self._context.audit_entry(caller, "link.revoked", link, details, owner.seq))
            return revoked

        if await self._context.database.write(revoke) is None:
            raise not_found(_KIND, link)

    def _ends_at(self) -> int:
        return self._context.now() + LINK_TTL_MS

    def _key_digest(self, caller: Caller) -> bytes | None:
        holder_id = caller.principal.id
        keys = self._context.cache.keys.values()
        return next((key.digest for key in keys if key.account_seq is None and key.id == holder_id), None)

    async def _create(
        self,
        caller: Caller,
        link: Link,
        owner: Account | None,
        request: idempotency.Request | None,
        details: Mapping[str, object],
    ) -> ShownLink:
        account_seq = None if owner is None else owner.seq
        entry = self._context.audit_entry(caller, "link.created", ids.prefixed(ids.LINK, link.id), details, account_seq)

        def create(connection: Transaction) -> Link:
            audit.add(connection, entry)
            return sessions.add_link(connection, link)

        stored, repeated = await self._context.write(create_once(request, link.id, entry.at, create, sessions.get_link))
        return ShownLink(self._links.link_url(stored.id), stored.expires_at, repeated, stored)
