"""Signs people in with a password, accepts invitations, and changes and resets passwords."""

from base64 import urlsafe_b64encode
from dataclasses import dataclass, replace
from typing import Final

import structlog

from uplift_server.core.people.accounts import check_name
from uplift_server.core.people.notifications import NotificationKind
from uplift_server.core.people.people import (
    RESET_TTL_MS,
    SESSION_RANDOM_BYTES,
    SESSION_TTL_MS,
    check_password,
    normalize_email,
)
from uplift_server.core.security import tokens
from uplift_server.core.security.rights import Role
from uplift_server.service.authentication import digest_of
from uplift_server.service.context import ServiceContext
from uplift_server.service.dashboard_links import DashboardLinks
from uplift_server.service.errors import Busy, ConfirmationRequired, Forbidden, NotFound, Unauthorized
from uplift_server.service.joining import NewIds, join_by_invitation, must_enter_password
from uplift_server.service.passwords import Passwords
from uplift_server.service.person_audit import audit_member_action, audit_person
from uplift_server.service.rejections import as_conflict, require_valid
from uplift_server.service.second_factors import WRONG_CODE, PendingSignIn, SecondFactorRequired, SecondFactors
from uplift_server.service.sign_ins import SignInLimits
from uplift_server.service.visitors import Visitor
from uplift_server.store import invitations, outbox, people, second_factors, sessions
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict, StoreError
from uplift_server.store.records import Invitation, Person, Session

_log = structlog.get_logger()
_WRONG_SIGN_IN: Final = "The email address or password is not correct. Check both."
_WRONG_FOR_INVITATION: Final = (
    "The password is not correct. If you have no password, sign in with a link from the operator, set a password under"
    " Your profile, and open this invitation again."
)
_NO_INVITATION: Final = "This invitation was accepted or withdrawn, or it has expired. Ask for a new invitation."
_NO_PENDING: Final = "This sign-in has expired. Enter your password again."
_NO_RESET: Final = "This link was used or has expired. Request a new one. Each link works once, for one hour."


@dataclass(frozen=True, slots=True)
class OpenInvitation:
    """An invitation as the invited person sees it."""

    account_name: str
    email: str
    role: Role
    invited_by: str
    has_password: bool | None
    """Whether the person must enter an existing password.

    None if the link was not emailed, because then the page must not reveal whether the person has a password.
    """


class Credentials:
    """Checks, sets and resets passwords."""

    def __init__(
        self,
        context: ServiceContext,
        links: DashboardLinks,
        passwords: Passwords,
        limits: SignInLimits,
        factors: SecondFactors,
    ) -> None:
        self._context = context
        self._links = links
        self._passwords = passwords
        self._limits = limits
        self._factors = factors

    @property
    def sends_email(self) -> bool:
        """Whether the server emails links. Without email, people cannot request a password reset."""
        return self._links.sends_email

    async def sign_in(self, email: str, password: str, *, address: str | None) -> str:
        """Sign a person in, and return the session cookie.

        Raises Unauthorized, SecondFactorRequired, RateLimited or Busy.
        """
        email = normalize_email(email)
        person = await self.verify_password(email, password, address)
        return await self.begin_session(person, "password", address)

    async def enter_code(self, pending: PendingSignIn | None, code: str, *, address: str | None) -> str:
        """Complete a sign-in with a second-factor code, and return the session cookie.

        Raises Unauthorized for a wrong code, NotFound if the sign-in has expired, or RateLimited.
        """
        now = self._context.now()
        if pending is None or now >= pending.expires_at:
            raise NotFound(_NO_PENDING)
        attempt = self._limits.begin_code(now, person_id=pending.person_id, address=address)
        cookie = new_cookie(self._context)

        def begin(connection: Transaction) -> None:
            person = people.find_by_id(connection, pending.person_id, lock=True)
            if (
                person is None
                or person.password_hash is None
                or tokens.password_mark(person.password_hash) != pending.mark
                or second_factors.get(connection, person.id) is None
            ):
                raise NotFound(_NO_PENDING)
            method = self._factors.use(connection, person, code, now)
            if method is None:
                raise Unauthorized(WRONG_CODE)
            sessions.create(connection, new_session(cookie, now, SESSION_TTL_MS, person_seq=person.seq))
            details = {"by": pending.by, "second_factor": method}
            audit_person(connection, person, "member.signed_in", details, now, address)

        try:
            await self._context.run_shielded(self._context.database.write(begin))
        except Unauthorized:
            _log.warning("sign-in rejected", client_address=address, method="second factor")
            raise
        except (NotFound, StoreError):
            attempt.cancel()
            raise
        attempt.succeed()
        return cookie

    async def invitation(self, token: str) -> OpenInvitation | None:
        """Return the open invitation with this token, or None if there is no such invitation."""
        invitation, person = await self._invited(token)
        account = None if invitation is None else self._context.cache.accounts.get(invitation.account_seq)
        if invitation is None or account is None:
            return None
        has_password = must_enter_password(invitation, person) if self._was_mailed(invitation) else None
        return OpenInvitation(account.name, invitation.email, invitation.role, invitation.invited_by, has_password)

    async def accept_invitation(self, token: str, name: str, password: str, *, address: str | None = None) -> str:
        """Add the invited person as a member, and return the session cookie.

        `password` is the person's existing password if `must_enter_password` returns True. Otherwise, `name` and
        `password` are new. If the link was not emailed, the errors for invalid input are the same in both cases, so
        that they do not reveal whether the person exists. Raises NotFound, Invalid (`name`, `password`), Unauthorized,
        SecondFactorRequired, RateLimited, Busy or Conflict.
        """
        invitation, person = await self._invited(token)
        if invitation is None:
            raise NotFound(_NO_INVITATION)
        has_password, password_hash = must_enter_password(invitation, person), None
        if not (has_password and self._was_mailed(invitation)):
            require_valid([check_name(name), check_password(password, invitation.email)])
        if has_password:
            await self.verify_password(invitation.email, password, address, wrong=_WRONG_FOR_INVITATION)
        else:
            password_hash = await self._passwords.hash(password)
        return await self._context.run_shielded(self._accept(invitation, person, name, password_hash, address))

    async def request_reset(self, email: str, *, address: str | None = None) -> None:
        """Email a password reset link, if a person with this email has a password.

        The response does not reveal whether such a person exists. Raises RateLimited.
        """
        email = normalize_email(email)
        attempt = self._limits.begin_reset(self._context.now(), email=email, address=address)
        try:
            person = await self._context.database.read(lambda c: people.find(c, email))
        except StoreError:
            attempt.cancel()
            raise
        if person is None or person.password_hash is None or not self._links.sends_email:
            return
        now, email_id = self._context.now(), self._context.new_id()
        mark, ends_at = tokens.password_mark(person.password_hash), now + RESET_TTL_MS
        facts = {"person": person.id.hex(), "expires_at": ends_at, "mark": mark}

        def add_email(connection: Transaction) -> None:
            outbox.add(
                connection,
                NotificationKind.PASSWORD_RESET,
                account_seq=None,
                endpoint_seq=None,
                recipients=[(email_id, email)],
                facts=facts,
                now=now,
            )

        # Do not wait, because the response time must not reveal whether the person exists.
        self._context.run_in_background(self._context.database.write(add_email))

    async def reset(self, token: str, password: str, *, address: str | None = None) -> str:
        """Replace a forgotten password, end all the person's sessions, begin a new session, and return its cookie.

        Raises NotFound, Invalid (`password`), SecondFactorRequired, Busy or Conflict.
        """
        decoded = tokens.parse_reset_token(token)
        person = None
        if decoded is not None:
            person_id, ends_at = decoded
            if self._context.now() < ends_at:
                person = await self._context.database.read(lambda c: people.find_by_id(c, person_id))
        if (
            person is None
            or person.password_hash is None
            or not self._links.is_valid_reset_token(token, person.password_hash)
        ):
            raise NotFound(_NO_RESET)
        require_valid([check_password(password, person.email)])
        # The link verifies the email address, because the server sent the link to it or the operator created the link.
        renewed = replace(person, password_hash=await self._passwords.hash(password), proved=True)
        await self._context.run_shielded(self._renew(person, renewed, "reset", address))
        return await self.begin_session(renewed, "reset", address)

    async def change_password(self, visitor: Visitor, current: str, password: str, *, address: str | None) -> None:
        """Replace the visitor's password, and end all the visitor's other sessions.

        If the visitor signed in with a link and has no password yet, set the first password. Raises Unauthorized if
        `current` is wrong, Invalid (`password`), ConfirmationRequired, Forbidden, RateLimited, Busy or Conflict.
        """
        person = visitor.person
        if person is None or person.email is None:
            raise Forbidden("Only members with an email address can set a password. Sign in as a member.")
        if person.password_hash is None:
            if not visitor.is_confirmed(self._context.now()):
                raise ConfirmationRequired
        else:
            person = await self.verify_password(person.email, current, address, visitor=visitor)
        require_valid([check_password(password, person.email)])
        renewed = replace(person, password_hash=await self._passwords.hash(password))
        await self._context.run_shielded(
            self._renew(person, renewed, "change", address, except_session=visitor.session_id)
        )

    async def rename(self, visitor: Visitor, name: str, *, address: str | None) -> None:
        """Change the visitor's display name. Raises Invalid (`name`), or Forbidden for guests and operators."""
        person, name, now = visitor.person, name.strip(), self._context.now()
        if person is None or person.email is None:
            raise Forbidden("Only members with an email address can set a display name. Sign in as a member.")
        require_valid([check_name(name)])

        def rename(connection: Transaction) -> None:
            found = people.get(connection, person.seq, lock=True)
            if found is None or found.id != person.id or found.name == name:
                return
            people.update(connection, replace(found, name=name))
            audit_person(connection, found, "member.renamed", {"from": found.name, "to": name}, now, address)

        await self._context.run_shielded(self._context.database.write(rename))

    async def begin_session(self, person: Person, by: str, address: str | None) -> str:
        """Begin a session for an authenticated person, and return its cookie.

        Raises SecondFactorRequired if the person has a second factor. Raises Unauthorized if, after the password check,
        the person was deleted or the password was changed.
        """
        cookie, now = new_cookie(self._context), self._context.now()
        session = new_session(cookie, now, SESSION_TTL_MS, person_seq=person.seq)

        def begin(connection: Transaction) -> None:
            # Compare the IDs: if the person was deleted, another person may now have the same `seq`.
            found = people.get(connection, person.seq, lock=True)
            if found is None or (found.id, found.password_hash) != (person.id, person.password_hash):
                raise Unauthorized(_WRONG_SIGN_IN)
            pending = self._factors.pending(connection, person, by, now)
            if pending is not None:
                raise SecondFactorRequired(pending)
            sessions.create(connection, session)
            audit_person(connection, person, "member.signed_in", {"by": by}, now, address)

        await self._context.run_shielded(self._context.database.write(begin))
        return cookie

    async def verify_password(
        self,
        email: str,
        password: str,
        address: str | None,
        *,
        visitor: Visitor | None = None,
        wrong: str = _WRONG_SIGN_IN,
    ) -> Person:
        """Return the person with this email and password.

        `visitor` is set if the person is already signed in. `wrong` is the error message for a wrong email or password.
        Raises RateLimited, Busy or Unauthorized.
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
            _log.warning("sign-in rejected", client_address=address, method="password")
            raise Unauthorized(wrong)
        assert person is not None, "an unknown email has no password"
        attempt.succeed()
        return person

    def _was_mailed(self, invitation: Invitation) -> bool:
        """Return whether the server sent the link only to the invited email address.

        If the server does not send email, the inviter gets the link instead.
        """
        return invitation.proves and self._links.sends_email

    async def _invited(self, token: str) -> tuple[Invitation | None, Person | None]:
        """Return the open invitation with this token, and the person with the invited email.

        Return None for an invitation or a person that does not exist.
        """
        invitation_id, now = self._links.invitation_of(token), self._context.now()
        if invitation_id is None:
            return None, None

        def find(connection: Transaction) -> tuple[Invitation | None, Person | None]:
            found = invitations.get(connection, invitation_id, now=now)
            return found, None if found is None else people.find(connection, found.email)

        return await self._context.database.read(find)

    async def _accept(
        self, invitation: Invitation, known: Person | None, name: str, password_hash: str | None, address: str | None
    ) -> str:
        cookie, now = new_cookie(self._context), self._context.now()
        new_ids = NewIds(self._context.new_id(), self._context.new_id())

        def join(connection: Transaction) -> PendingSignIn | bool:
            member = join_by_invitation(
                connection,
                invitation,
                known,
                new_ids,
                now,
                name=name.strip(),
                password_hash=password_hash,
                address=address,
            )
            if member is None:
                return False
            audit_member_action(connection, member, "member.joined", "invitation", now, address)
            pending = self._factors.pending(connection, member.person, "invitation", now)
            if pending is None:
                sessions.create(connection, new_session(cookie, now, SESSION_TTL_MS, person_seq=member.person.seq))
            return pending or True

        joined = await self._context.write(join)
        if not joined:
            raise NotFound(_NO_INVITATION)
        if isinstance(joined, PendingSignIn):
            raise SecondFactorRequired(joined)
        return cookie

    async def _renew(
        self, known: Person, renewed: Person, by: str, address: str | None, except_session: bytes | None = None
    ) -> None:
        """Store a new password, and end all the person's sessions except `except_session`.

        Add an entry to the audit log of each of the person's accounts. Raises Conflict if another request has changed
        the password.
        """
        now = self._context.now()

        def renew(connection: Transaction) -> bool:
            found = people.get(connection, known.seq, lock=True)
            if found is None or (found.id, found.password_hash) != (known.id, known.password_hash):
                return False
            people.update(connection, replace(renewed, name=found.name))
            # Before the email was verified, another person may have turned on the second factor.
            if not found.proved and renewed.proved and second_factors.delete(connection, found.id):
                audit_person(connection, known, "member.second_factor_turned_off", {"by": by}, now, address)
            sessions.end_all_of_person(connection, known.seq, except_digest=except_session)
            audit_person(connection, known, "member.password_changed", {"by": by}, now, address)
            return True

        if not await self._context.database.write(renew):
            raise as_conflict(Conflict("Another request changed the password. Try again."))


def new_session(
    cookie: str,
    now: int,
    ttl_ms: int,
    *,
    person_seq: int | None = None,
    account_seq: int | None = None,
    key_digest: bytes | None = None,
    is_read_only: bool = False,
) -> Session:
    """Return a new session for a person, or for an operator's key. The session begins at `now` (Unix ms)."""
    digest, ends_at = digest_of(cookie.encode()), now + ttl_ms
    return Session(digest, person_seq, account_seq, key_digest, now, now, now, ends_at, is_read_only)


def new_cookie(context: ServiceContext) -> str:
    """Return a random session cookie."""
    return urlsafe_b64encode(context.random_bytes(SESSION_RANDOM_BYTES)).rstrip(b"=").decode("ascii")
