"""Dashboard sessions.

Each session's cookie is 32 random bytes. The store contains only the cookie's digest. The server looks up the session
for each request. Therefore, changed roles, removed members and revoked operator keys take effect immediately.
"""

from typing import Final, NamedTuple

import structlog

from uplift_server.core import ids
from uplift_server.core.people.audit import Actor, ActorKind, AuditEntry
from uplift_server.core.people.people import (
    PORTAL_SESSION_TTL_MS,
    SESSION_SEEN_EVERY_MS,
    SESSION_TTL_MS,
    csrf_token,
    is_session_expired,
)
from uplift_server.service.authentication import KEY_BYTES_MAX, digest_of
from uplift_server.service.context import ServiceContext
from uplift_server.service.credentials import Credentials, new_cookie, new_session
from uplift_server.service.dashboard_links import DashboardLinks
from uplift_server.service.errors import NotFound, Unauthorized
from uplift_server.service.joining import NewIds, join_by_link
from uplift_server.service.passwords import Passwords
from uplift_server.service.person_audit import audit_member_action
from uplift_server.service.principals import READ_ONLY_SCOPES, Principal, PrincipalKind
from uplift_server.service.second_factors import SecondFactors
from uplift_server.service.sign_ins import SignInLimits
from uplift_server.service.visitors import Membership, Visitor
from uplift_server.store import accounts, audit, people, sessions
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict, Unavailable
from uplift_server.store.people import AccountMembership
from uplift_server.store.records import ApiKey, Link, Person, Session

__all__ = ["Membership", "Sessions", "Visitor"]

_log = structlog.get_logger()
COOKIE_CHARACTERS_MAX: Final = 100
_ID_BYTES: Final = 16
_WRONG_KEY: Final = "The operator key (op_…) is unknown or revoked. Check that you copied the whole key."
_LINK_USED: Final = "This link was used or has expired. Ask for a new one. Each link works once, for a few minutes."


class _Found(NamedTuple):
    session: Session
    person: Person | None
    places: list[AccountMembership]


class Sessions(Credentials):
    """Begins, confirms and ends visitors' sessions."""

    def __init__(
        self,
        context: ServiceContext,
        links: DashboardLinks,
        passwords: Passwords,
        limits: SignInLimits,
        factors: SecondFactors,
        *,
        operator_grant: bytes | None = None,
    ) -> None:
        """`operator_grant` is a digest of the single sign-on settings that make people operators."""
        super().__init__(context, links, passwords, limits, factors)
        self._operator_grant = operator_grant

    async def sign_in_operator(self, key: str, *, address: str | None, is_read_only: bool = False) -> str:
        """Sign an operator in, and return the session cookie. Raises Unauthorized or RateLimited."""
        found = self._operator_key(key, address)
        return await self._context.run_shielded(self._begin_operator(found, "key", address, is_read_only=is_read_only))

    async def open_link(self, token: str, *, address: str | None) -> str:
        """Use a one-time link, and return the session cookie.

        Raises NotFound if the link was already used, has expired or is invalid.
        """
        link = await self._link(token)
        if link is None:
            raise NotFound(_LINK_USED)
        if link.account_seq is None:
            key = self._context.cache.keys.get(link.key_digest or b"")
            if key is None:
                raise NotFound(_LINK_USED)
            begun = self._begin_operator(key, "link", address, link, is_read_only=link.is_read_only)
            return await self._context.run_shielded(begun)
        return await self._context.run_shielded(self._open_portal_link(link, address))

    async def can_open_link(self, token: str) -> bool:
        """Return whether a one-time link is still valid, without using it."""
        return await self._link(token) is not None

    async def visitor(self, cookie: str | None) -> Visitor | None:
        """Return the visitor with this session cookie, or None if there is no valid session."""
        if not cookie or len(cookie) > COOKIE_CHARACTERS_MAX:
            return None
        digest, now = digest_of(cookie.encode("utf-8", "replace")), self._context.now()
        found = await self._context.database.read(lambda c: _find(c, digest))
        if found is None or is_session_expired(now, seen_at=found.session.seen_at, ends_at=found.session.ends_at):
            return None
        visitor = self._visitor_of(found, cookie)
        if visitor is not None and now - found.session.seen_at >= SESSION_SEEN_EVERY_MS:
            await self._touch(digest, now)
        return visitor

    async def confirm(self, visitor: Visitor, password: str, *, address: str | None) -> None:
        """Confirm the visitor's identity with the password or an operator's key.

        Raises Unauthorized, RateLimited or Busy.
        """
        if visitor.person is None:
            self._operator_key(password, address, visitor)
        elif visitor.person.email is None or visitor.person.password_hash is None:
            raise Unauthorized("You have no password. Sign in again with a new link to confirm your identity.")
        else:
            await self.verify_password(visitor.person.email, password, address, visitor=visitor)
        now = self._context.now()
        await self._context.database.write(lambda c: sessions.confirm(c, visitor.session_id, now=now))

    async def sign_out(self, visitor: Visitor) -> None:
        """End the session of this visitor."""
        await self._context.database.write(lambda c: sessions.end(c, visitor.session_id))

    async def sign_out_everywhere(self, visitor: Visitor) -> None:
        """End all of the person's or operator's sessions. For a guest, end only this session."""

        def end(connection: Transaction) -> None:
            found = sessions.get(connection, visitor.session_id)
            sessions.end(connection, visitor.session_id)
            if visitor.person is not None:
                # All guests share one person, so a guest must not sign out the other guests.
                if visitor.person.email is None:
                    return
                sessions.end_all_of_person(connection, visitor.person.seq)
            elif found is not None and found.key_digest is not None and found.subject is not None:
                sessions.end_all_of_operator(connection, found.key_digest, found.subject)
            elif found is not None and found.key_digest is not None:
                sessions.end_all_of_key(connection, found.key_digest)

        await self._context.database.write(end)

    def _operator_key(self, key: str, address: str | None, visitor: Visitor | None = None) -> ApiKey:
        """Return the operator key with this text. Raises Unauthorized or RateLimited."""
        now = self._context.now()
        if visitor is None:
            attempt = self._limits.begin(now, email=None, address=address)
        else:
            attempt = self._limits.begin_confirmation(now, session_id=visitor.session_id, address=address)
        found = self._context.cache.keys.get(digest_of(key.strip()[:KEY_BYTES_MAX].encode("utf-8", "replace")))
        if found is None or found.account_seq is not None:
            _log.warning("sign-in rejected", client_address=address, method="operator key")
            raise Unauthorized(_WRONG_KEY)
        attempt.succeed()
        return found

    async def _link(self, token: str) -> Link | None:
        link_id = self._links.link_of(token)
        if link_id is None:
            return None
        now = self._context.now()
        found = await self._context.database.read(lambda c: sessions.get_link(c, link_id))
        return None if found is None or now >= found.expires_at else found

    async def _begin_operator(
        self, key: ApiKey, by: str, address: str | None, link: Link | None = None, *, is_read_only: bool
    ) -> str:
        cookie, now = new_cookie(self._context), self._context.now()
        session = new_session(cookie, now, SESSION_TTL_MS, key_digest=key.digest, is_read_only=is_read_only)
        details: dict[str, object] = {"by": by, "read_only": True} if is_read_only else {"by": by}
        actor = Actor(ActorKind.OPERATOR, key.name, ids.prefixed(ids.KEY, key.id), address)

        def begin(connection: Transaction) -> bool:
            if link is not None and sessions.consume_link(connection, link.id, now=now) is None:
                return False
            sessions.create(connection, session)
            audit.add(connection, AuditEntry(None, now, actor, "operator.signed_in", actor.id or "", details))
            return True

        if not await self._context.database.write(begin):
            raise NotFound(_LINK_USED)
        return cookie

    async def _open_portal_link(self, link: Link, address: str | None) -> str:
        cookie, now = new_cookie(self._context), self._context.now()
        new_ids = NewIds(self._context.new_id(), self._context.new_id())

        def use_link(connection: Transaction) -> bool:
            assert link.account_seq is not None, "a portal link has an account"
            accounts.lock(connection, link.account_seq)
            taken = sessions.consume_link(connection, link.id, now=now)
            if taken is None:
                return False
            member = join_by_link(connection, taken, new_ids, now, address)
            session = new_session(
                cookie, now, PORTAL_SESSION_TTL_MS, person_seq=member.person.seq, account_seq=member.account_seq
            )
            sessions.create(connection, session)
            if member.id == new_ids.member:
                audit_member_action(connection, member, "member.joined", "portal link", now, address)
            audit_member_action(connection, member, "member.signed_in", "portal link", now, address)
            return True

        try:
            opened = await self._context.database.write(use_link)
        except Conflict as error:
            raise NotFound(str(error)) from error
        if not opened:
            raise NotFound(_LINK_USED)
        return cookie

    def _visitor_of(self, found: _Found, cookie: str) -> Visitor | None:
        session, token = found.session, csrf_token(cookie)
        if session.person_seq is None:
            operator = self._operator_of(session)
            if operator is None:
                return None
            accounts = self._context.cache.accounts_by_id
            return Visitor(
                session.digest,
                None,
                (),
                session.confirmed_at,
                token,
                subject=session.subject,
                _operator=operator,
                _accounts=accounts,
            )
        memberships = tuple(
            Membership(account, place.role, place.member_id)
            for place in found.places
            if session.account_seq in (None, place.account_seq)
            and (account := self._context.cache.accounts.get(place.account_seq)) is not None
        )
        if found.person is None or not memberships:
            return None
        is_portal = session.account_seq is not None
        return Visitor(
            session.digest, found.person, memberships, session.confirmed_at, token, is_portal, session.subject
        )

    def _operator_of(self, session: Session) -> Principal | None:
        """Return a session's operator.

        Return None if the operator's key was revoked, or if the single sign-on settings changed.
        """
        if session.subject is not None:
            if session.key_digest != self._operator_grant:
                return None
            operator_id = digest_of(session.subject.encode())[:_ID_BYTES]
            name = session.operator_name or session.subject
        else:
            key = self._context.cache.keys.get(session.key_digest or b"")
            if key is None:
                return None
            operator_id, name = key.id, key.name
        return Principal(
            PrincipalKind.OPERATOR_SESSION,
            operator_id,
            None,
            READ_ONLY_SCOPES if session.is_read_only else frozenset(),
            name,
            confirmed_at=session.confirmed_at,
            is_read_only=session.is_read_only,
            subject=session.subject,
        )

    async def _touch(self, digest: bytes, now: int) -> None:
        try:
            await self._context.database.write(lambda c: sessions.touch(c, digest, now=now))
        except Unavailable:
            # The current request does not need this update, and the next request tries again.
            return


def _find(connection: Transaction, digest: bytes) -> _Found | None:
    session = sessions.get(connection, digest)
    if session is None:
        return None
    if session.person_seq is None:
        return _Found(session, None, [])
    return _Found(
        session, people.get(connection, session.person_seq), people.memberships(connection, session.person_seq)
    )
