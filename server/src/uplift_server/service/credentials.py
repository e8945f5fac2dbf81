"""People's passwords: given to sign in, set by an invitation or a reset, changed. Each may begin a session."""

from base64 import urlsafe_b64encode
from dataclasses import dataclass, replace
from typing import Final

import structlog

from uplift_server.core import ids
from uplift_server.core.people.accounts import check_name
from uplift_server.core.people.audit import Actor, ActorKind, AuditEntry
from uplift_server.core.people.notifications import NotificationKind
from uplift_server.core.people.people import (
    RESET_TTL_MS,
    SESSION_RANDOM_BYTES,
    SESSION_TTL_MS,
    check_password,
    normalize_email,
)
from uplift_server.core.problems import Problem
from uplift_server.core.security import tokens
from uplift_server.core.security.rights import Role
from uplift_server.service.authentication import digest_of
from uplift_server.service.context import ServiceContext
from uplift_server.service.dashboard_links import DashboardLinks
from uplift_server.service.errors import Busy, ConfirmationRequired, Forbidden, NotFound, Unauthorized
from uplift_server.service.joining import NewIds, accept, gives_own_password
from uplift_server.service.passwords import Passwords
from uplift_server.service.rejections import refusal, refuse
from uplift_server.service.sign_ins import SignInLimits
from uplift_server.service.visitors import Visitor
from uplift_server.store import audit, invitations, outbox, people, sessions
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict, StoreError
from uplift_server.store.records import Invitation, Member, Person, Session

_log = structlog.get_logger()
_WRONG: Final = "There is no such mail address with this password. Check both."
_WRONG_FOR_INVITATION: Final = (
    "The password is not correct. If you sign in with links from the operator, use one to set a password under Your"
    " sign-in, then open this invitation again."
)
_NO_INVITATION: Final = "This invitation was accepted or withdrawn, or is over. Ask whoever invited you for a new one."
_NO_RESET: Final = "This link was used before, or is over: it works once, for an hour. Ask for a new one."


@dataclass(frozen=True, slots=True)
class OpenInvitation:
    """What whoever opens an invitation is to know before accepting it."""

    account_name: str
    email: str
    role: Role
    invited_by: str
    has_password: bool | None
    """Whether the person has a password to enter instead of choosing one. None: shown only after the password."""


class Credentials:
    """What people do with passwords, and to get one."""

    def __init__(
        self, context: ServiceContext, entrance: DashboardLinks, passwords: Passwords, limits: SignInLimits
    ) -> None:
        self._context = context
        self._entrance = entrance
        self._passwords = passwords
        self._limits = limits

    @property
    def sends_mail(self) -> bool:
        """Whether links are mailed; without it nobody can ask for a reset."""
        return self._entrance.mails

    async def sign_in(self, email: str, password: str, *, address: str | None) -> str:
        """Begin a session of a person; gives the cookie's text. Raises Unauthorized, RateLimited and Busy."""
        email = normalize_email(email)
        person = await self._person(email, password, address)
        return await self.begin(person, "password", address)

    async def invitation(self, token: str) -> OpenInvitation | None:
        """Return an invitation; None if there is none, or it was accepted, withdrawn, or has expired."""
        invitation, person = await self._invited(token)
        account = None if invitation is None else self._context.cache.accounts.get(invitation.account_seq)
        if invitation is None or account is None:
            return None
        own = gives_own_password(invitation, person) if self._was_mailed(invitation) else None
        return OpenInvitation(account.name, invitation.email, invitation.role, invitation.invited_by, own)

    async def accept_invitation(self, token: str, name: str, password: str, *, address: str | None = None) -> str:
        """Become a member; return the session cookie.

        A person with a password enters it. Others choose a name and a password. If the link was not mailed, invalid
        input has the same response for both, so that the link does not show whether the email has an account.

        Raises NotFound, Invalid (`name`, `password`), Unauthorized, RateLimited, Busy and Conflict.
        """
        invitation, person = await self._invited(token)
        if invitation is None:
            raise NotFound(_NO_INVITATION)
        own, password_hash = gives_own_password(invitation, person), None
        if not (own and self._was_mailed(invitation)):
            refuse(_problems(check_name(name), check_password(password, invitation.email)))
        if own:
            await self._person(invitation.email, password, address, wrong=_WRONG_FOR_INVITATION)
        else:
            password_hash = await self._passwords.hash(password)
        return await self._context.carry_out(self._accept(invitation, person, name, password_hash, address))

    async def request_reset(self, email: str, *, address: str | None = None) -> None:
        """Mail a link with which a forgotten password is replaced, if there is one. Says nothing of whether there is.

        Raises RateLimited.
        """
        email = normalize_email(email)
        attempt = self._limits.begin_reset(self._context.now(), email=email, address=address)
        try:
            person = await self._context.database.read(lambda c: people.find(c, email))
        except StoreError:
            attempt.cancel()
            raise
        if person is None or person.password_hash is None or not self._entrance.mails:
            return
        now, notice_id = self._context.now(), self._context.new_id()
        mark, ends_at = tokens.password_mark(person.password_hash), now + RESET_TTL_MS
        facts = {"person": person.id.hex(), "expires_at": ends_at, "mark": mark}

        def owe(connection: Transaction) -> None:
            outbox.add(
                connection,
                NotificationKind.PASSWORD_RESET,
                account_seq=None,
                endpoint_seq=None,
                recipients=[(notice_id, email)],
                facts=facts,
                now=now,
            )

        # Not awaited: how long the answer takes tells nobody whether there is such a person.
        self._context.carry_on(self._context.database.write(owe))

    async def reset(self, token: str, password: str, *, address: str | None = None) -> str:
        """Replace a forgotten password, end all sessions and begin one; gives the cookie's text.

        Raises NotFound, Invalid (`password`), Busy and Conflict.
        """
        stated = tokens.parse_reset_token(token)
        person = None
        if stated is not None:
            person_id, ends_at = stated
            if self._context.now() < ends_at:
                person = await self._context.database.read(lambda c: people.find_id(c, person_id))
        if person is None or person.password_hash is None or not self._entrance.is_reset(token, person.password_hash):
            raise NotFound(_NO_RESET)
        refuse(_problems(check_password(password, person.email)))
        # The link came by mail, or from the operator.
        renewed = replace(person, password_hash=await self._passwords.hash(password), proved=True)
        await self._context.carry_out(self._renew(person, renewed, "reset", address))
        return await self.begin(renewed, "reset", address)

    async def change_password(self, visitor: Visitor, present: str, password: str, *, address: str | None) -> None:
        """Set another password, and end all other sessions; who has none sets one, soon after coming through a link.

        Raises Unauthorized for a wrong present one, Invalid (`password`), ConfirmationRequired, Forbidden, RateLimited,
        Busy and Conflict.
        """
        person = visitor.person
        if person is None or person.email is None:
            raise Forbidden("Only people with a mail address have a password here.")
        if person.password_hash is None:
            if not visitor.is_confirmed(self._context.now()):
                raise ConfirmationRequired
        else:
            person = await self._person(person.email, present, address, visitor=visitor)
        refuse(_problems(check_password(password, person.email)))
        renewed = replace(person, password_hash=await self._passwords.hash(password))
        await self._context.carry_out(self._renew(person, renewed, "change", address, but=visitor.session_id))

    async def rename(self, visitor: Visitor, name: str, *, address: str | None) -> None:
        """Change the name that others see. Raises Invalid (`name`), and Forbidden for whoever is nobody by name."""
        person, name, now = visitor.person, name.strip(), self._context.now()
        if person is None or person.email is None:
            raise Forbidden("Only people with a mail address have a name here.")
        refuse(_problems(check_name(name)))

        def rename(connection: Transaction) -> None:
            found = people.get(connection, person.seq)
            if found is None or found.id != person.id or found.name == name:
                return
            people.update(connection, replace(found, name=name))
            for place in people.places(connection, found.seq):
                actor = Actor(ActorKind.MEMBER, found.title, ids.prefixed(ids.MEMBER, place.member_id), address)
                details = {"from": found.name, "to": name}
                audit.add(
                    connection, AuditEntry(place.account_seq, now, actor, "member.renamed", actor.id or "", details)
                )

        await self._context.carry_out(self._context.database.write(rename))

    async def begin(self, person: Person, by: str, address: str | None) -> str:
        """Begin a session of a person who has shown to be that; gives the cookie's text.

        Raises Unauthorized where the person left, or changed the password, at the same moment.
        """
        cookie, now = self.new_cookie(), self._context.now()
        session = new_session(cookie, now, SESSION_TTL_MS, person_seq=person.seq)

        def begin(connection: Transaction) -> None:
            # The number of whoever was forgotten may be given to somebody else.
            found = people.get(connection, person.seq)
            if found is None or (found.id, found.password_hash) != (person.id, person.password_hash):
                raise Unauthorized(_WRONG)
            sessions.create(connection, session)
            for place in people.places(connection, person.seq):
                actor = Actor(ActorKind.MEMBER, person.title, ids.prefixed(ids.MEMBER, place.member_id), address)
                subject = actor.id or ""
                audit.add(
                    connection, AuditEntry(place.account_seq, now, actor, "member.signed_in", subject, {"by": by})
                )

        await self._context.carry_out(self._context.database.write(begin))
        return cookie

    async def _person(
        self, email: str, password: str, address: str | None, *, visitor: Visitor | None = None, wrong: str = _WRONG
    ) -> Person:
        """Return the person with this email and password. `visitor` is the person, if signed in already.

        Raises Unauthorized with the text `wrong`, RateLimited, and Busy.
        """
        now = self._context.now()
        if visitor is None:
            attempt = self._limits.begin(now, email=email, address=address)
        else:
            attempt = self._limits.begin_confirmation(now, session_id=visitor.session_id, address=address)
        try:
            person = await self._context.database.read(lambda c: people.find(c, email))
            is_right = await self._passwords.matches(None if person is None else person.password_hash, password)
        except (Busy, StoreError):
            attempt.cancel()
            raise
        if not is_right:
            _log.warning("sign-in rejected", address=address, by="password")
            raise Unauthorized(wrong)
        assert person is not None, "an unknown email has no password"
        attempt.succeed()
        return person

    def _was_mailed(self, invitation: Invitation) -> bool:
        """Whether only the owner of the email has the link. Without email, others see the link, too."""
        return invitation.proves and self._entrance.mails

    async def _invited(self, token: str) -> tuple[Invitation | None, Person | None]:
        """An invitation, and the person who has its mail address already."""
        invitation_id, now = self._entrance.invitation_of(token), self._context.now()
        if invitation_id is None:
            return None, None

        def find(connection: Transaction) -> tuple[Invitation | None, Person | None]:
            found = invitations.get(connection, invitation_id, now=now)
            return found, None if found is None else people.find(connection, found.email)

        return await self._context.database.read(find)

    async def _accept(
        self, invitation: Invitation, known: Person | None, name: str, password_hash: str | None, address: str | None
    ) -> str:
        cookie, now = self.new_cookie(), self._context.now()
        fresh = NewIds(self._context.new_id(), self._context.new_id())

        def join(connection: Transaction) -> bool:
            member = accept(connection, invitation, known, fresh, now, name=name.strip(), password_hash=password_hash)
            if member is None:
                return False
            sessions.create(connection, new_session(cookie, now, SESSION_TTL_MS, person_seq=member.person.seq))
            note(connection, member, "member.joined", "invitation", now, address)
            return True

        try:
            joined = await self._context.database.write(join)
        except Conflict as error:
            raise refusal(error) from error
        if not joined:
            raise NotFound(_NO_INVITATION)
        return cookie

    async def _renew(
        self, known: Person, renewed: Person, by: str, address: str | None, but: bytes | None = None
    ) -> None:
        """Write another password, end the sessions (but one) and tell every account's audit log."""
        now = self._context.now()

        def renew(connection: Transaction) -> bool:
            found = people.get(connection, known.seq)
            if found is None or (found.id, found.password_hash) != (known.id, known.password_hash):
                return False
            people.update(connection, replace(renewed, name=found.name))
            sessions.end_of_person(connection, known.seq, but=but)
            for place in people.places(connection, known.seq):
                actor = Actor(ActorKind.MEMBER, known.title, ids.prefixed(ids.MEMBER, place.member_id), address)
                entry = AuditEntry(place.account_seq, now, actor, "member.password_changed", actor.id or "", {"by": by})
                audit.add(connection, entry)
            return True

        if not await self._context.database.write(renew):
            raise refusal(Conflict("The password was changed at the same moment. Try again."))

    def new_cookie(self) -> str:
        """The text of a new session's cookie."""
        return urlsafe_b64encode(self._context.random_bytes(SESSION_RANDOM_BYTES)).rstrip(b"=").decode("ascii")


def new_session(
    cookie: str,
    now: int,
    lasts_ms: int,
    *,
    person_seq: int | None = None,
    account_seq: int | None = None,
    key_digest: bytes | None = None,
) -> Session:
    """A session that begins now, of a person or behind an operator's key."""
    return Session(digest_of(cookie.encode()), person_seq, account_seq, key_digest, now, now, now, now + lasts_ms)


def note(connection: Transaction, member: Member, action: str, by: str, now: int, address: str | None) -> None:
    """Tell the account's audit log what a member did, and by what."""
    subject = ids.prefixed(ids.MEMBER, member.id)
    actor = Actor(ActorKind.MEMBER, member.person.title, subject, address)
    details = {"by": by, "role": member.role.text} if action == "member.joined" else {"by": by}
    audit.add(connection, AuditEntry(member.account_seq, now, actor, action, subject, details))


def _problems(*found: Problem | None) -> list[Problem]:
    return [problem for problem in found if problem is not None]
