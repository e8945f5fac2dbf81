"""Signing in to the dashboard, and who is signed in.

A session is known by its cookie: 32 random bytes, of which the store has the digest. Whose it is is looked up for every
request, so a role that was changed, a member who was removed and an operator's key that was revoked count at once.
"""

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from uplift_server.core import ids
from uplift_server.core.audit import Actor, ActorKind, AuditEntry
from uplift_server.core.people import (
    GUEST_NAME,
    PORTAL_SESSION_LASTS_MS,
    SESSION_LASTS_MS,
    SESSION_RANDOM_BYTES,
    SESSION_SEEN_EVERY_MS,
    csrf_token,
    is_confirmed,
    normal_email,
    session_is_over,
)
from uplift_server.core.rights import Role
from uplift_server.service.authentication import KEY_BYTES_MAX, digest_of
from uplift_server.service.entrance import Entrance
from uplift_server.service.errors import NotFound, Unauthorized
from uplift_server.service.means import Means
from uplift_server.service.passwords import Passwords
from uplift_server.service.principals import Caller, Holder, Principal
from uplift_server.service.refusals import not_found, parse_id
from uplift_server.service.sign_ins import SignInLimits
from uplift_server.store import audit, members, people, sessions
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict, Unavailable
from uplift_server.store.people import Place
from uplift_server.store.records import Account, ApiKey, Link, Member, Person, Session

COOKIE_CHARACTERS_MAX: Final = 100
_WRONG: Final = "There is no such mail address with this password. Check both."
_WRONG_KEY: Final = "This is no operator's key (op_…), or it was revoked. Check that all of it was copied."
_SPENT: Final = "This link was opened before, or is over: it works once, for a few minutes. Ask for a new one."


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


class _Found(NamedTuple):
    session: Session
    person: Person | None
    places: list[Place]


class Sessions:
    """What somebody at the sign-in page does, and somebody who is signed in with the session."""

    def __init__(self, means: Means, entrance: Entrance, passwords: Passwords, limits: SignInLimits) -> None:
        self._means = means
        self._entrance = entrance
        self._passwords = passwords
        self._limits = limits

    async def sign_in(self, email: str, password: str, *, address: str | None) -> str:
        """Begin a session of a person; gives the cookie's text. Raises Unauthorized, RateLimited and Busy."""
        email = normal_email(email)
        person = await self._person(email, password, address)
        return await self.begin(person, "password", address)

    async def sign_in_operator(self, key: str, *, address: str | None) -> str:
        """Begin a session of an operator; gives the cookie's text. Raises Unauthorized and RateLimited."""
        found = self._operator_key(key, address)
        return await self._means.carry_out(self._begin_operator(found, "key", address))

    async def enter(self, token: str, *, address: str | None) -> str:
        """Spend a one-time link; gives the cookie's text. Raises NotFound for one that is spent, over or none."""
        link = await self._link(token)
        if link is None:
            raise NotFound(_SPENT)
        if link.account_seq is None:
            key = self._means.directory.keys.get(link.key_digest or b"")
            if key is None:
                raise NotFound(_SPENT)
            return await self._means.carry_out(self._begin_operator(key, "link", address, link))
        return await self._means.carry_out(self._enter_portal(link, address))

    async def can_enter(self, token: str) -> bool:
        """Whether a one-time link can still be spent, for the page that asks for it. Spends nothing."""
        return await self._link(token) is not None

    async def visitor(self, cookie: str | None) -> Visitor | None:
        """Who is signed in with this cookie; None for nobody."""
        if not cookie or len(cookie) > COOKIE_CHARACTERS_MAX:
            return None
        digest, now = digest_of(cookie.encode("utf-8", "replace")), self._means.now()
        found = await self._means.database.read(lambda c: _find(c, digest))
        if found is None or session_is_over(now, seen_at=found.session.seen_at, ends_at=found.session.ends_at):
            return None
        visitor = self._visitor_of(found, cookie)
        if visitor is not None and now - found.session.seen_at >= SESSION_SEEN_EVERY_MS:
            await self._touch(digest, now)
        return visitor

    async def confirm(self, visitor: Visitor, password: str, *, address: str | None) -> None:
        """Give the password again (an operator: the operator's key). Raises Unauthorized, RateLimited and Busy."""
        if visitor.person is None:
            self._operator_key(password, address)
        elif visitor.person.email is None or visitor.person.password_hash is None:
            raise Unauthorized("You have no password here. Come again through a new link, and this is shown.")
        else:
            await self._person(visitor.person.email, password, address)
        now = self._means.now()
        await self._means.database.write(lambda c: sessions.confirm(c, visitor.session_id, now=now))

    async def sign_out(self, visitor: Visitor) -> None:
        """End the session."""
        await self._means.database.write(lambda c: sessions.end(c, visitor.session_id))

    async def sign_out_everywhere(self, visitor: Visitor) -> None:
        """End all sessions of the person; of an operator, all that the same key is behind."""

        def end(connection: Transaction) -> None:
            found = sessions.get(connection, visitor.session_id)
            sessions.end(connection, visitor.session_id)
            if visitor.person is not None:
                sessions.end_of_person(connection, visitor.person.seq)
            elif found is not None and found.key_digest is not None:
                sessions.end_of_key(connection, found.key_digest)

        await self._means.database.write(end)

    async def begin(self, person: Person, by: str, address: str | None) -> str:
        """Begin a session of a person who has shown to be that; gives the cookie's text."""
        cookie, now = self._new_cookie(), self._means.now()
        session = _session(cookie, now, SESSION_LASTS_MS, person_seq=person.seq)

        def begin(connection: Transaction) -> None:
            sessions.create(connection, session)
            for place in people.places(connection, person.seq):
                actor = Actor(ActorKind.MEMBER, person.title, ids.prefixed(ids.MEMBER, place.member_id), address)
                _note_sign_in(connection, place.account_seq, now, actor, by)

        await self._means.carry_out(self._means.database.write(begin))
        return cookie

    async def _person(self, email: str, password: str, address: str | None) -> Person:
        """The person with this mail address and password. Raises Unauthorized, RateLimited and Busy."""
        self._limits.begin(self._means.now(), email=email, address=address)
        person = await self._means.database.read(lambda c: people.find(c, email))
        if not await self._passwords.matches(None if person is None else person.password_hash, password):
            raise Unauthorized(_WRONG)
        assert person is not None, "nobody has no password"
        self._limits.succeed(email=email, address=address)
        return person

    def _operator_key(self, key: str, address: str | None) -> ApiKey:
        """The operator's key with this text. Raises Unauthorized and RateLimited."""
        self._limits.begin(self._means.now(), email=None, address=address)
        found = self._means.directory.keys.get(digest_of(key.strip()[:KEY_BYTES_MAX].encode("utf-8", "replace")))
        if found is None or found.account_seq is not None:
            raise Unauthorized(_WRONG_KEY)
        self._limits.succeed(email=None, address=address)
        return found

    async def _link(self, token: str) -> Link | None:
        link_id = self._entrance.link_of(token)
        if link_id is None:
            return None
        now = self._means.now()
        found = await self._means.database.read(lambda c: sessions.get_link(c, link_id))
        return None if found is None or now >= found.expires_at else found

    async def _begin_operator(self, key: ApiKey, by: str, address: str | None, link: Link | None = None) -> str:
        cookie, now = self._new_cookie(), self._means.now()
        session = _session(cookie, now, SESSION_LASTS_MS, key_digest=key.digest)
        actor = Actor(ActorKind.OPERATOR, key.name, ids.prefixed(ids.KEY, key.id), address)

        def begin(connection: Transaction) -> bool:
            if link is not None and sessions.take_link(connection, link.id, now=now) is None:
                return False
            sessions.create(connection, session)
            audit.add(connection, AuditEntry(None, now, actor, "operator.signed_in", actor.id or "", {"by": by}))
            return True

        if not await self._means.database.write(begin):
            raise NotFound(_SPENT)
        return cookie

    async def _enter_portal(self, link: Link, address: str | None) -> str:
        cookie, now = self._new_cookie(), self._means.now()
        person_id, member_id = self._means.new_id(), self._means.new_id()

        def enter(connection: Transaction) -> bool:
            taken = sessions.take_link(connection, link.id, now=now)
            if taken is None:
                return False
            member = _portal_member(connection, taken, person_id=person_id, member_id=member_id, now=now)
            session = _session(
                cookie, now, PORTAL_SESSION_LASTS_MS, person_seq=member.person.seq, account_seq=member.account_seq
            )
            sessions.create(connection, session)
            subject = ids.prefixed(ids.MEMBER, member.id)
            actor = Actor(ActorKind.MEMBER, member.person.title, subject, address)
            if member.id == member_id:
                details = {"role": member.role.text, "by": "portal link"}
                audit.add(connection, AuditEntry(member.account_seq, now, actor, "member.joined", subject, details))
            _note_sign_in(connection, member.account_seq, now, actor, "portal link")
            return True

        try:
            entered = await self._means.database.write(enter)
        except Conflict as error:
            raise NotFound(str(error)) from error
        if not entered:
            raise NotFound(_SPENT)
        return cookie

    def _visitor_of(self, found: _Found, cookie: str) -> Visitor | None:
        session, token = found.session, csrf_token(cookie)
        if session.person_seq is None:
            key = self._means.directory.keys.get(session.key_digest or b"")
            if key is None:
                return None
            holder = Principal(
                Holder.OPERATOR_SESSION, key.id, None, frozenset(), key.name, confirmed_at=session.confirmed_at
            )
            accounts = self._means.directory.accounts_by_id
            return Visitor(session.digest, None, (), session.confirmed_at, token, _operator=holder, _accounts=accounts)
        memberships = tuple(
            Membership(account, place.role, place.member_id)
            for place in found.places
            if session.account_seq in (None, place.account_seq)
            and (account := self._means.directory.accounts.get(place.account_seq)) is not None
        )
        if found.person is None or not memberships:
            return None
        is_portal = session.account_seq is not None
        return Visitor(session.digest, found.person, memberships, session.confirmed_at, token, is_portal)

    async def _touch(self, digest: bytes, now: int) -> None:
        try:
            await self._means.database.write(lambda c: sessions.touch(c, digest, now=now))
        except Unavailable:
            # The page can be shown all the same; the next request tries again.
            return

    def _new_cookie(self) -> str:
        return urlsafe_b64encode(self._means.random_bytes(SESSION_RANDOM_BYTES)).rstrip(b"=").decode("ascii")


def _session(
    cookie: str,
    now: int,
    lasts_ms: int,
    *,
    person_seq: int | None = None,
    account_seq: int | None = None,
    key_digest: bytes | None = None,
) -> Session:
    return Session(digest_of(cookie.encode()), person_seq, account_seq, key_digest, now, now, now, now + lasts_ms)


def _find(connection: Transaction, digest: bytes) -> _Found | None:
    session = sessions.get(connection, digest)
    if session is None:
        return None
    if session.person_seq is None:
        return _Found(session, None, [])
    return _Found(session, people.get(connection, session.person_seq), people.places(connection, session.person_seq))


def _portal_member(connection: Transaction, link: Link, *, person_id: bytes, member_id: bytes, now: int) -> Member:
    """Whoever a portal link lets in: made a person and a member, where they are none. Raises Conflict."""
    assert link.account_seq is not None, "an operator's link is none of a portal"
    if link.email is None:
        guest = members.guest(connection, link.account_seq, link.role)
        if guest is not None:
            return guest
    person = None if link.email is None else people.find(connection, link.email)
    if person is None:
        person = people.create(
            connection,
            person_id=person_id,
            email=link.email,
            name=link.email or GUEST_NAME,
            password_hash=None,
            proved=True,
            now=now,
        )
    elif not person.proved:
        # Somebody gave this mail address without showing that it is theirs. The operator's word says whose it is: a
        # password from before must not let anybody else into what is shown from now on.
        person = replace(person, password_hash=None, proved=True)
        people.update(connection, person)
        sessions.end_of_person(connection, person.seq)
    found = members.of_person(connection, link.account_seq, person.seq)
    return found or members.add(
        connection, member_id=member_id, account_seq=link.account_seq, person=person, role=link.role, now=now
    )


def _note_sign_in(connection: Transaction, account_seq: int, now: int, actor: Actor, by: str) -> None:
    subject = actor.id or ""
    audit.add(connection, AuditEntry(account_seq, now, actor, "member.signed_in", subject, {"by": by}))
