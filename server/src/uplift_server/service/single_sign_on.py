"""Single sign-on with OpenID Connect: sign-in for members and operators, sign-out, and linked identities."""

import hmac
import os
from dataclasses import replace
from typing import Final, NamedTuple

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from uplift_server.core.people.audit import Actor, ActorKind, AuditEntry
from uplift_server.core.people.people import INVITATIONS_PER_SIGN_IN_MAX, SINGLE_SIGN_ON_SESSION_TTL_MS
from uplift_server.core.security import oidc
from uplift_server.core.security.id_tokens import Identity, operator_name
from uplift_server.service.context import ServiceContext
from uplift_server.service.credentials import new_cookie, new_session
from uplift_server.service.errors import Busy, Forbidden, Unauthorized
from uplift_server.service.identity_provider import Identified, IdentityProvider, ProviderDown, ProviderFailed
from uplift_server.service.joining import NOT_A_MEMBER, NewIds, NoAccess, accept_invitations, join_by_identity
from uplift_server.service.person_audit import audit_member_action, audit_person
from uplift_server.service.sign_ins import SignInLimits
from uplift_server.service.visitors import Visitor
from uplift_server.store import accounts, audit, identities, invitations, people, sessions
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict, StoreError
from uplift_server.store.records import Invitation, Person, Session

BY: Final = "single sign-on"
"""The name of this sign-in method in the audit log."""
_NONCE_BYTES: Final = 12
_EXPIRED: Final = "This sign-in has expired, was completed, or began in another browser. Sign in again."
_DENIED: Final = (
    "The sign-in was cancelled, or the identity provider does not allow it. Sign in again, or use another way to"
    " sign in."
)
_FAILED: Final = (
    "Single sign-on failed, because the response of the identity provider is not valid. Sign in again. If it fails"
    " again, ask the operator to check the server log."
)
_CHANGED: Final = "Another request changed your user data. Sign in again."
_DOWN: Final = "The identity provider does not respond. Try again in a moment, or use another way to sign in."
_NO_ACCOUNT: Final = "You are not a member of any account. Ask an admin of your account to invite you."

_log = structlog.get_logger()


class SignInTransaction(NamedTuple):
    """A sign-in that the browser continues at the identity provider. Only the browser stores the sign-in."""

    state: str
    nonce: str
    verifier: str
    next: str
    """The page to show after the sign-in."""
    again: bool
    """Whether the person must enter their credentials again, to confirm their identity."""
    expires_at: int


class AuthorizationResponse(NamedTuple):
    """The query parameters that the identity provider adds when it redirects the browser back to the server."""

    state: str
    code: str | None
    error: str | None
    issuer: str | None


class SingleSignOn:
    """Signs people in with the configured identity provider."""

    def __init__(self, context: ServiceContext, limits: SignInLimits, provider: IdentityProvider) -> None:
        self._context = context
        self._limits = limits
        self._provider = provider

    @property
    def has_operators(self) -> bool:
        """Whether the configuration names a group at the provider whose members are operators."""
        return self._provider.client.has_operators

    async def begin(self, page: str, *, again: bool) -> tuple[str, SignInTransaction]:
        """Return the URL where the person signs in, and the transaction to store in the browser. Raises Busy."""
        metadata = await self._metadata()
        state, nonce, verifier = (oidc.random_text(self._context.random_bytes(oidc.RANDOM_BYTES)) for _ in range(3))
        ends_at = self._context.now() + oidc.TRANSACTION_MS
        url = oidc.authorization_url(
            metadata, self._provider.client, state=state, nonce=nonce, verifier=verifier, again=again
        )
        return url, SignInTransaction(state, nonce, verifier, page, again, ends_at)

    async def complete(
        self, transaction: SignInTransaction | None, response: AuthorizationResponse, *, address: str | None
    ) -> str:
        """Sign the person in, and return the session cookie.

        Raises Unauthorized, Forbidden for a person without access, RateLimited or Busy.
        """
        now = self._context.now()
        if (
            transaction is None
            or now >= transaction.expires_at
            or not hmac.compare_digest(transaction.state.encode(), response.state.encode("utf-8", "replace"))
        ):
            raise Unauthorized(_EXPIRED)
        attempt = self._limits.begin(now, email=None, address=address)
        try:
            code = await self._code(response, address)
            identified = await self._identify(code, transaction, address)
            cookie = await self._context.run_shielded(self._sign_in(identified, address, again=transaction.again))
        except (Busy, StoreError):
            attempt.cancel()
            raise
        attempt.succeed()
        return cookie

    async def sign_out_url(self, visitor: Visitor, cookie: str, back: str) -> str | None:
        """Return the URL that signs the visitor out at the provider and then returns to `back`.

        Return None if the visitor did not sign in at the provider, or if the provider does not respond or does not
        support sign-out.
        """
        if visitor.subject is None:
            return None
        stored = await self._context.database.read(lambda c: sessions.id_token(c, visitor.session_id))
        try:
            metadata = await self._metadata()
        except Busy:
            return None
        token = None if stored is None else _decrypted(stored, cookie)
        return oidc.sign_out_url(metadata, self._provider.client, id_token=token, back=back)

    async def is_linked(self, person: Person) -> bool:
        """Return whether a person has a linked identity at the provider."""
        issuer = self._provider.client.issuer
        return await self._context.database.read(lambda c: identities.is_linked(c, issuer, person))

    async def unlink(self, visitor: Visitor, *, address: str | None) -> None:
        """Unlink a person's identity, so that another identity with the same email can sign in."""
        person, now, issuer = visitor.person, self._context.now(), self._provider.client.issuer
        if person is None or person.email is None:
            raise Forbidden("Only members with an email address have a linked identity. Sign in as a member.")

        def unlink(connection: Transaction) -> None:
            if identities.unlink(connection, issuer, person):
                audit_person(connection, person, "member.identity_unlinked", {"issuer": issuer}, now, address)

        await self._context.run_shielded(self._context.database.write(unlink))

    async def _metadata(self) -> oidc.ProviderMetadata:
        try:
            return await self._provider.metadata()
        except ProviderDown as error:
            _log.warning("identity provider failed", cause=str(error))
            raise Busy(_DOWN) from error

    async def _code(self, response: AuthorizationResponse, address: str | None) -> str:
        """Return the authorization code from the provider's response. Raises Unauthorized or Busy."""
        named = response.issuer
        if named is None and (await self._metadata()).names_issuer:
            named = ""
        if named not in (None, self._provider.client.issuer):
            raise _rejected("authorization response: the issuer (iss) is not the configured one", address)
        if response.error is not None:
            cause = f"authorization response: {oidc.known_error(response.error)}"
            raise _rejected(cause, address, _DENIED if response.error == "access_denied" else _FAILED)
        if not response.code or len(response.code) > oidc.CODE_CHARACTERS_MAX:
            raise _rejected("authorization response: no valid code", address)
        return response.code

    async def _identify(self, code: str, transaction: SignInTransaction, address: str | None) -> Identified:
        """Return the person whom the provider identifies. Raises Unauthorized or Busy."""
        try:
            return await self._provider.identify(code, transaction.verifier, transaction.nonce)
        except ProviderDown as error:
            _log.warning("identity provider failed", cause=str(error))
            raise Busy(_DOWN) from error
        except ProviderFailed as error:
            raise _rejected(str(error), address) from error

    async def _sign_in(self, identified: Identified, address: str | None, *, again: bool) -> str:
        identity, cookie, now = identified.identity, new_cookie(self._context), self._context.now()
        id_token = _encrypted(identified.id_token, cookie)
        confirmed_at = identity.authenticated_at
        if confirmed_at is None and again:
            # The server required a new authentication, but the provider does not report its time.
            confirmed_at = now
        session = replace(
            new_session(cookie, now, SINGLE_SIGN_ON_SESSION_TTL_MS),
            subject=identity.subject,
            confirmed_at=None if confirmed_at is None else min(confirmed_at, now),
        )
        if identity.is_operator:
            await self._begin_operator(identity, session, id_token, address)
        else:
            await self._begin_member(identity, session, id_token, address)
        return cookie

    async def _begin_operator(self, identity: Identity, session: Session, id_token: bytes, address: str | None) -> None:
        name = operator_name(identity)
        grant = self._provider.client.operator_grant
        own = replace(session, key_digest=grant, operator_name=name, is_read_only=identity.is_read_only)
        details: dict[str, object] = {"by": BY, "read_only": True} if own.is_read_only else {"by": BY}
        actor = Actor(ActorKind.OPERATOR, name, f"oidc:{identity.subject}", address)

        def begin(connection: Transaction) -> None:
            sessions.create(connection, own, id_token=id_token)
            entry = AuditEntry(None, own.created_at, actor, "operator.signed_in", actor.id or "", details)
            audit.add(connection, entry)

        await self._context.database.write(begin)

    async def _begin_member(self, identity: Identity, session: Session, id_token: bytes, address: str | None) -> None:
        now = session.created_at
        new_ids = NewIds(self._context.new_id(), self._context.new_id())
        member_ids = [self._context.new_id() for _ in range(INVITATIONS_PER_SIGN_IN_MAX)]

        def begin(connection: Transaction) -> None:
            open_ones = _locked_invitations(connection, identity, now)
            found, is_new = join_by_identity(connection, identity, open_ones, new_ids, now, address)
            person = people.get(connection, found.seq, lock=True)
            if person is None or person.id != found.id:
                raise NoAccess(_NO_ACCOUNT, NOT_A_MEMBER)
            if person.email == identity.email:
                for member in accept_invitations(connection, person, open_ones, member_ids[: len(open_ones)], now):
                    audit_member_action(connection, member, "member.joined", BY, now, address)
            if not people.memberships(connection, person.seq):
                raise NoAccess(_NO_ACCOUNT, NOT_A_MEMBER)
            if is_new:
                audit_person(connection, person, "member.identity_linked", {"issuer": identity.issuer}, now, address)
            sessions.create(connection, replace(session, person_seq=person.seq), id_token=id_token)
            audit_person(connection, person, "member.signed_in", {"by": BY}, now, address)

        try:
            await self._context.database.write(begin)
        except NoAccess as error:
            _log.warning("sign-in rejected", client_address=address, method=BY, cause=error.cause)
            raise Forbidden(str(error)) from error
        except Conflict as error:
            raise Busy(_CHANGED) from error


def _locked_invitations(connection: Transaction, identity: Identity, now: int) -> list[Invitation]:
    """Return the invitations to the person's email, and lock the accounts of these invitations.

    Skip invitations to deleted accounts.
    """
    if identity.email is None:
        return []
    found = invitations.list_for_email(connection, identity.email, now=now, limit=INVITATIONS_PER_SIGN_IN_MAX)
    open_ones = [each for each in found if accounts.lock(connection, each.account_seq)]
    # Another transaction may have accepted an invitation before its account was locked.
    return [each for each in open_ones if invitations.get(connection, each.id, now=now) is not None]


def _rejected(cause: str, address: str | None, text: str = _FAILED) -> Unauthorized:
    """Log why the server rejects a sign-in, and return the error for the person."""
    _log.warning("sign-in rejected", client_address=address, method=BY, cause=cause)
    return Unauthorized(text)


def _encrypted(id_token: str, cookie: str) -> bytes:
    """Encrypt an ID token, because it contains personal data.

    The key is derived from the session cookie, which only the browser stores.
    """
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(cookie).encrypt(nonce, id_token.encode(), None)


def _decrypted(encrypted: bytes, cookie: str) -> str | None:
    try:
        return _cipher(cookie).decrypt(encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:], None).decode()
    except InvalidTag:
        return None


def _cipher(cookie: str) -> AESGCM:
    return AESGCM(hmac.digest(cookie.encode(), b"ID token", "sha256"))
