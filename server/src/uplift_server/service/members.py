"""The members of accounts, their roles and invitations. Members cannot grant a role above their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from uplift_server.core import ids
from uplift_server.core.people.accounts import check_email
from uplift_server.core.people.notifications import NotificationKind, SecondFactorChange
from uplift_server.core.people.people import INVITATION_TTL_MS, RESET_TTL_MS, normalize_email
from uplift_server.core.problems import Problem
from uplift_server.core.security.failed_attempts import Failures
from uplift_server.core.security.rights import GUEST_ROLE_MAX, Right, Role, can_grant, check_role, parse_role
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.dashboard_links import DashboardLinks
from uplift_server.service.errors import Conflict, Forbidden, Invalid, RateLimited
from uplift_server.service.fields import UNSET, Unset, given
from uplift_server.service.idempotency import IdempotencyKey, check_idempotency_key, create_once, idempotent_request
from uplift_server.service.portal_links import ShownLink
from uplift_server.service.principals import Caller, PrincipalKind
from uplift_server.service.rejections import not_found, parse_id, require_valid
from uplift_server.service.second_factors import SecondFactors
from uplift_server.store import accounts, audit, invitations, members, outbox, people, second_factors, sessions
from uplift_server.store.contract import Transaction
from uplift_server.store.records import Account, Invitation, Member, Page

INVITATIONS_PER_HOUR_MAX: Final = 50
"""The maximum number of invitations per account in one hour. The limit prevents floods of unwanted emails."""
_HOUR_MS: Final = 3_600_000
_KIND: Final = "member"
_INVITATION_KIND: Final = "invitation"
_GUEST_CANNOT_LEAVE: Final = (
    "A portal guest cannot leave the account, because all portal guests share one membership. Sign out instead."
)
_LAST_OWNER: Final = "An account must have an owner. First, give another member the role owner."


@dataclass(frozen=True, slots=True)
class InvitationDraft:
    """The invitation fields in a request."""

    email: str | Unset = UNSET
    role: str | Unset = UNSET

    def problems(self) -> list[Problem | None]:
        """Return the problems with the invitation fields."""
        return [
            None if isinstance(self.email, Unset) else check_email(self.email.strip()),
            None if isinstance(self.role, Unset) else check_role(self.role),
        ]


@dataclass(frozen=True, slots=True)
class ShownInvitation:
    """An invitation as the inviter sees it."""

    invitation: Invitation
    url: str | None = field(repr=False)
    """The link to give to the person. None if the server sends the link by email."""
    repeated: bool
    """Whether an earlier request created the invitation."""


class Members:
    """Invites, updates and removes members.

    Operators can manage the members of all accounts. Members with the right MEMBERS_MANAGE can manage the members of
    their own account.
    """

    def __init__(self, context: ServiceContext, links: DashboardLinks, factors: SecondFactors) -> None:
        self._context = context
        self._links = links
        self._factors = factors
        self._recent_invitations = Failures(INVITATIONS_PER_HOUR_MAX, _HOUR_MS)

    async def page(
        self, caller: Caller, account: str, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[Member]:
        """Return a page of an account's members. Raises NotFound."""
        owner = self._managed_account(caller, account)
        request = self._context.page_request(listing, 1, problems)
        return await self._context.database.read(lambda c: members.page(c, owner.seq, request))

    async def invitations(
        self, caller: Caller, account: str, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[Invitation]:
        """Return the open invitations of an account. Raises NotFound."""
        owner, now = self._managed_account(caller, account), self._context.now()
        request = self._context.page_request(listing, 1, problems)
        return await self._context.database.read(lambda c: invitations.page(c, owner.seq, request, now=now))

    async def invite(
        self,
        caller: Caller,
        account: str,
        draft: InvitationDraft,
        *,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
    ) -> ShownInvitation:
        """Invite a person by email, or create a link to give to the person if email is not configured.

        A new invitation replaces a pending invitation to the same email. Raises NotFound, Invalid (also if the person
        is already a member), Forbidden if the role of the new or the replaced invitation is above the caller's role,
        Conflict if the account has too many invitations, or RateLimited.
        """
        owner = self._managed_account(caller, account)
        require_valid([*problems, *draft.problems(), check_idempotency_key(idempotency_key)])
        role = _role(given(draft.role))
        _require_may_give(caller, role)
        if not caller.principal.is_operator:
            self._limit(owner)
        return await self._context.run_shielded(
            self._invite(caller, owner, normalize_email(given(draft.email)), role, idempotency_key)
        )

    async def withdraw(self, caller: Caller, account: str, invitation: str) -> None:
        """Withdraw an invitation, so that its link no longer works.

        Raises NotFound, or Forbidden if the invitation's role is above the caller's role.
        """
        owner, now = self._managed_account(caller, account), self._context.now()
        invitation_id = parse_id(ids.INVITATION, invitation, _INVITATION_KIND)

        def withdraw(connection: Transaction) -> None:
            accounts.lock(connection, owner.seq)
            found = invitations.get(connection, invitation_id, now=now)
            if found is None or found.account_seq != owner.seq:
                raise not_found(_INVITATION_KIND, invitation)
            _require_may_give(caller, found.role)
            invitations.consume(connection, invitation_id, now=now)
            _delete_unsent(connection, owner.seq, found.email)
            details = {"email": found.email, "role": found.role.text}
            self._audit(connection, caller, owner, "member.invitation_withdrawn", invitation, details)

        await self._context.run_shielded(self._context.database.write(withdraw))

    async def change_role(
        self, caller: Caller, account: str, member: str, role: str | Unset, *, problems: Sequence[Problem] = ()
    ) -> Member:
        """Change the role of a member.

        Raises NotFound, Forbidden if the old or the new role is above the caller's role, Invalid if a guest cannot
        have the new role, or Conflict if the account would have no owner.
        """
        owner = self._managed_account(caller, account)
        require_valid([*problems, None if isinstance(role, Unset) else check_role(role)])
        new_role = _role(given(role))
        _require_may_give(caller, new_role)

        def change(connection: Transaction) -> Member:
            found = self._found(connection, owner, member)
            _require_may_give(caller, found.role)
            if found.person.email is None and new_role > GUEST_ROLE_MAX:
                text = (
                    f"A portal guest cannot have the role {new_role.text}, because guests have no email address. Use"
                    f" {GUEST_ROLE_MAX.text} or a lower role."
                )
                raise Invalid([Problem("role", "role_not_for_guests", text)])
            if new_role is found.role:
                return found
            _require_other_owner(connection, found)
            members.set_role(connection, found, new_role)
            details = {"name": found.person.title, "from": found.role.text, "to": new_role.text}
            details |= self._drop_invitation(connection, found)
            self._audit(connection, caller, owner, "member.role_changed", member, details)
            return self._found(connection, owner, member)

        return await self._context.run_shielded(self._context.database.write(change))

    async def remove(self, caller: Caller, account: str, member: str) -> None:
        """Remove a member, or let the caller leave the account.

        Raises NotFound, Forbidden (also if a guest tries to leave), or Conflict if the account would have no owner.
        """
        leaves = caller.actor.id == member and caller.principal.kind is PrincipalKind.MEMBER
        owner = self._context.find_account(caller, account) if leaves else self._managed_account(caller, account)

        def remove(connection: Transaction) -> None:
            found = self._found(connection, owner, member)
            if not leaves:
                _require_may_give(caller, found.role)
            elif found.person.email is None:
                raise Forbidden(_GUEST_CANNOT_LEAVE)
            _require_other_owner(connection, found)
            # The person could use an unused link to undo the removal.
            revoked = sessions.end_portal_access(connection, owner.seq, found)
            members.remove(connection, found)
            details: dict[str, object] = {"name": found.person.title, "role": found.role.text}
            details |= self._drop_invitation(connection, found)
            if revoked:
                details["revoked_portal_links"] = revoked
            self._audit(connection, caller, owner, "member.removed", member, details)

        await self._context.run_shielded(self._context.database.write(remove))

    async def reset_password(
        self, caller: Caller, account: str, member: str, *, problems: Sequence[Problem] = ()
    ) -> ShownLink:
        """Return a link that resets a member's password.

        Operators need this link on servers without email. Raises NotFound, or Conflict for a member without a password.
        """
        caller.require_operator()
        owner = self._context.find_account(caller, account)
        require_valid(problems)
        ends_at = self._context.now() + RESET_TTL_MS

        def find(connection: Transaction) -> Member:
            found = self._found(connection, owner, member)
            if found.person.password_hash is None:
                raise Conflict("This member has no password. Create a portal link instead.")
            details = {"for": found.person.title}
            self._audit(connection, caller, owner, "link.created", member, details)
            return found

        person = (await self._context.database.write(find)).person
        assert person.password_hash is not None
        url = self._links.reset_url(person.id, person.password_hash, ends_at)
        return ShownLink(url, ends_at, repeated=False)

    async def reset_second_factor(self, caller: Caller, account: str, member: str) -> None:
        """Turn off the second factor for a member who lost the authenticator app and the recovery codes.

        Only operators can turn off a second factor, because the person can also be a member of other accounts. Raises
        NotFound, or Conflict if the second factor is off.
        """
        caller.require_operator()
        owner, now = self._context.find_account(caller, account), self._context.now()

        def reset(connection: Transaction) -> None:
            person = self._found(connection, owner, member).person
            people.get(connection, person.seq, lock=True)
            if not second_factors.delete(connection, person.id):
                raise Conflict("The second factor of this member is off, so there is nothing to reset.")
            for place in people.memberships(connection, person.seq):
                subject = ids.prefixed(ids.MEMBER, place.member_id)
                entry = self._context.audit_entry(
                    caller, "member.second_factor_reset", subject, {"for": person.title}, place.account_seq
                )
                audit.add(connection, entry)
            self._factors.notify(connection, person, SecondFactorChange.RESET, now)

        await self._context.run_shielded(self._context.database.write(reset))

    def _managed_account(self, caller: Caller, account: str) -> Account:
        caller.require_right(Right.MEMBERS_MANAGE)
        return self._context.find_account(caller, account)

    def _limit(self, owner: Account) -> None:
        now, key = self._context.now(), str(owner.seq)
        wait_ms = self._recent_invitations.wait_ms(key, now)
        if wait_ms:
            text = f"An account can send at most {INVITATIONS_PER_HOUR_MAX} invitations per hour. Try again later."
            raise RateLimited(text, -(-wait_ms // 1000))
        self._recent_invitations.note(key, now)

    def _found(self, connection: Transaction, owner: Account, member: str) -> Member:
        """Return a member. Lock the account, so that no other transaction changes its members. Raises NotFound."""
        accounts.lock(connection, owner.seq)
        found = members.get(connection, owner.seq, parse_id(ids.MEMBER, member, _KIND))
        if found is None:
            raise not_found(_KIND, member)
        return found

    def _drop_invitation(self, connection: Transaction, member: Member) -> dict[str, str]:
        """Delete the invitation of a person who joined in another way. Return its details for the audit log.

        The person could use the invitation to undo a removal or a new role.
        """
        email = member.person.email
        if email is None:
            return {}
        role = invitations.remove(connection, member.account_seq, email, now=self._context.now())
        _delete_unsent(connection, member.account_seq, email)
        return {} if role is None else {"withdrawn_invitation": role.text}

    async def _invite(
        self, caller: Caller, owner: Account, email: str, role: Role, idempotency_key: IdempotencyKey | None
    ) -> ShownInvitation:
        now, invitation_id, email_id = self._context.now(), self._context.new_id(), self._context.new_id()
        sends_email = self._links.sends_email
        request = idempotent_request(idempotency_key, owner.seq, _INVITATION_KIND)
        invited_by = "The operator" if caller.principal.is_operator else caller.principal.name

        def create(connection: Transaction) -> Invitation:
            accounts.require(connection, owner.seq)
            if members.find(connection, owner.seq, email) is not None:
                text = "A person with this email address is already a member. Change the member's role instead."
                raise Invalid([Problem("email", "member_exists", text)])
            replaced = invitations.remove(connection, owner.seq, email, now=now)
            _delete_unsent(connection, owner.seq, email)
            if replaced is not None:
                _require_may_give(caller, replaced, "Replacing the pending invitation of this person")
            created = invitations.create(
                connection,
                invitation_id=invitation_id,
                account_seq=owner.seq,
                email=email,
                role=role,
                invited_by=invited_by,
                proves=sends_email or caller.principal.is_operator,
                expires_at=now + INVITATION_TTL_MS,
                now=now,
            )
            if sends_email:
                _add_email(connection, owner, created, email_id)
            details = {"email": email, "role": role.text}
            subject = ids.prefixed(ids.INVITATION, created.id)
            self._audit(connection, caller, owner, "member.invited", subject, details)
            return created

        def load(connection: Transaction, earlier: bytes) -> Invitation | None:
            found = invitations.get(connection, earlier, now=now)
            return found if found is not None and found.account_seq == owner.seq else None

        invitation, repeated = await self._context.write(create_once(request, invitation_id, now, create, load))
        url = None if sends_email else self._links.invitation_url(invitation.id)
        return ShownInvitation(invitation, url, repeated)

    def _audit(
        self,
        connection: Transaction,
        caller: Caller,
        owner: Account,
        action: str,
        subject: str,
        details: Mapping[str, object],
    ) -> None:
        audit.add(connection, self._context.audit_entry(caller, action, subject, details, owner.seq))


def _role(text: str) -> Role:
    role = parse_role(text)
    assert role is not None, "an unknown role has already been rejected"
    return role


def _require_may_give(caller: Caller, role: Role, what: str = "This") -> None:
    """Raise Forbidden if a role is above the caller's role."""
    own = caller.principal.role
    if own is not None and not can_grant(own, role):
        text = f"{what} requires the role {role.text}, and your role is {own.text}."
        raise Forbidden(f"{text} Ask a member with the role {role.text}.")


def _require_other_owner(connection: Transaction, member: Member) -> None:
    if member.role is Role.OWNER and not members.has_other_owner(connection, member):
        raise Conflict(_LAST_OWNER)


def _delete_unsent(connection: Transaction, account_seq: int, email: str) -> None:
    """Delete unsent emails with an invitation that was withdrawn or replaced."""
    outbox.delete_unsent(connection, account_seq, kinds=(NotificationKind.MEMBER_INVITED,), recipients=(email,))


def _add_email(connection: Transaction, owner: Account, invitation: Invitation, email_id: bytes) -> None:
    facts = {
        "invitation": invitation.id.hex(),
        "account": owner.name,
        "role": invitation.role.text,
        "invited_by": invitation.invited_by,
        "expires_at": invitation.expires_at,
    }
    outbox.add(
        connection,
        NotificationKind.MEMBER_INVITED,
        account_seq=owner.seq,
        endpoint_seq=None,
        recipients=[(email_id, invitation.email)],
        facts=facts,
        now=invitation.created_at,
    )
