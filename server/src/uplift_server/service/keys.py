"""Account API keys.

The server returns the text of a key only once, in the response to the request that creates the key. The database stores
only a digest of the text.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from uplift_server.core import ids
from uplift_server.core.people.accounts import check_name
from uplift_server.core.people.audit import difference
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import Right
from uplift_server.core.security.scopes import DEFAULT_SCOPES, AccountsScope, Scope, check_scopes
from uplift_server.core.timestamps import format_timestamp, parse_timestamp
from uplift_server.service.authentication import ACCOUNT_PREFIX, digest_of, ending_of
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.fields import UNSET, Unset, given, given_or, given_or_none
from uplift_server.service.idempotency import IdempotencyKey, check_idempotency_key, create_once, idempotent_request
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, parse_id, require_valid
from uplift_server.store import audit, keys
from uplift_server.store.contract import Transaction
from uplift_server.store.records import Account, ApiKey, Page, ServiceKey

KEY_RANDOM_BYTES: Final = 24
KEY_KIND: Final = "key"
_FIELDS: Final = ("name", "expires_at")
"""The fields that an update can change."""


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """The API key fields in a request. An update leaves absent fields unchanged."""

    name: str | Unset = UNSET
    scopes: Sequence[str] | Unset | None = UNSET
    expires_at: str | Unset | None = UNSET

    def problems(self, now: int, *, known: Collection[Scope | AccountsScope] = tuple(Scope)) -> list[Problem | None]:
        """Return the problems with the API key fields. `known` contains the scopes that the key can have."""
        name = None if isinstance(self.name, Unset) else check_name(self.name)
        return [name, *check_scopes(given_or_none(self.scopes) or (), known=known), self._expiry_problem(now)]

    def scopes_or_default(self) -> frozenset[str]:
        """Return the requested scopes, or the default scopes."""
        scopes = given_or_none(self.scopes)
        return frozenset(DEFAULT_SCOPES if scopes is None else scopes)

    def expiry_or(self, default: int | None) -> int | None:
        """Return the requested expiry (Unix ms), or the default if the field is absent.

        None means that the key never expires.
        """
        if isinstance(self.expires_at, Unset):
            return default
        return None if self.expires_at is None else parse_timestamp(self.expires_at)

    def _expiry_problem(self, now: int) -> Problem | None:
        try:
            expires_at = self.expiry_or(None)
        except ValueError as error:
            return Problem("expires_at", "instant_invalid", str(error))
        if expires_at is None or expires_at > now:
            return None
        text = "The timestamp is in the past. Use a future timestamp. To end a key now, revoke it."
        return Problem("expires_at", "expires_at_past", text)


class Keys:
    """Creates, reads, updates and revokes account keys."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def create(
        self,
        caller: Caller,
        account: str,
        draft: KeyDraft,
        *,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
    ) -> tuple[ApiKey, str | None]:
        """Create a key for an account. Return the key and its text, which is None if the request is repeated.

        The key can have only scopes that the caller has. Raises NotFound, Invalid, or ConfirmationRequired for a key
        that can read secrets, because a person must enter the password again to see secrets.
        """
        caller.require_right(Right.KEYS_MANAGE)
        owner = self._context.find_account(caller, account)
        found = draft.problems(self._context.now())
        require_valid([*problems, *found, *_excess_scopes(caller, draft), check_idempotency_key(idempotency_key)])
        if Scope.SECRETS_READ in draft.scopes_or_default():
            caller.require_confirmed(self._context.now())
        return await self._context.run_shielded(self._create(caller, owner, draft, idempotency_key))

    async def page(
        self, caller: Caller, account: str, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[ApiKey]:
        """Return a page of an account's keys. Raises NotFound."""
        caller.require_right(Right.KEYS_MANAGE)
        owner = self._context.find_account(caller, account)
        request = self._context.page_request(listing, 1, problems)
        return await self._context.database.read(lambda c: keys.page(c, owner.seq, request))

    async def get(self, caller: Caller, account: str, key: str) -> ApiKey:
        """Return one of an account's keys. Raises NotFound."""
        caller.require_right(Right.KEYS_MANAGE)
        owner, key_id = self._context.find_account(caller, account), parse_id(ids.KEY, key, KEY_KIND)
        found = await self._context.database.read(lambda c: keys.get(c, owner.seq, key_id))
        if found is None:
            raise not_found(KEY_KIND, key)
        return found

    async def update(
        self, caller: Caller, account: str, key: str, draft: KeyDraft, *, problems: Sequence[Problem] = ()
    ) -> ApiKey:
        """Update a key's name and expiry. To change the expiry, the caller needs all of the key's scopes.

        Raises NotFound, Invalid, or Forbidden. Raises ConfirmationRequired if the request changes the expiry and the
        key can read secrets.
        """
        caller.require_right(Right.KEYS_MANAGE)
        owner = self._context.find_account(caller, account)
        require_valid([*problems, *draft.problems(self._context.now())])
        return await self._context.run_shielded(self._update(caller, owner, key, draft))

    async def revoke(self, caller: Caller, account: str, key: str) -> None:
        """Revoke an account's API key immediately. Raises NotFound."""
        caller.require_right(Right.KEYS_MANAGE)
        owner = self._context.find_account(caller, account)
        await self._context.run_shielded(self._revoke(caller, owner, key))

    async def _create(
        self, caller: Caller, owner: Account, draft: KeyDraft, idempotency_key: IdempotencyKey | None
    ) -> tuple[ApiKey, str | None]:
        text = new_key_text(ACCOUNT_PREFIX, self._context.random_bytes(KEY_RANDOM_BYTES))
        now, key_id = self._context.now(), self._context.new_id()
        request = idempotent_request(idempotency_key, owner.seq, KEY_KIND)

        def create(connection: Transaction) -> ApiKey:
            key = keys.create(
                connection,
                key_id=key_id,
                account_seq=owner.seq,
                name=given(draft.name),
                digest=digest_of(text.encode()),
                ends_with=ending_of(text),
                scopes=draft.scopes_or_default(),
                expires_at=draft.expiry_or(None),
                now=now,
            )
            self._audit(connection, caller, "key.created", key, created_details(key))
            return key

        def load(connection: Transaction, earlier: bytes) -> ApiKey | None:
            return keys.get(connection, owner.seq, earlier)

        key, repeated = await self._context.write(create_once(request, key_id, now, create, load))
        if repeated:
            return key, None
        self._context.cache.put_key(key)
        return key, text

    async def _update(self, caller: Caller, owner: Account, key: str, draft: KeyDraft) -> ApiKey:
        key_id = parse_id(ids.KEY, key, KEY_KIND)

        def update(connection: Transaction) -> ApiKey | None:
            details: dict[str, object] = {}

            def change(stored: ApiKey) -> ApiKey:
                changed = replace(
                    stored, name=given_or(draft.name, stored.name), expires_at=draft.expiry_or(stored.expires_at)
                )
                if changed.expires_at != stored.expires_at:
                    self._require_own_scopes(caller, stored)
                details.update(changed_details(stored, changed))
                return changed

            changed = keys.update(connection, owner.seq, key_id, change)
            if changed is not None and details:
                self._audit(connection, caller, "key.changed", changed, details)
            return changed

        changed = await self._context.database.write(update)
        if changed is None:
            raise not_found(KEY_KIND, key)
        self._context.cache.put_key(changed)
        return changed

    async def _revoke(self, caller: Caller, owner: Account, key: str) -> None:
        now, key_id = self._context.now(), parse_id(ids.KEY, key, KEY_KIND)

        def revoke(connection: Transaction) -> ApiKey | None:
            revoked = keys.revoke(connection, owner.seq, key_id, now=now)
            if revoked is not None:
                self._audit(connection, caller, "key.revoked", revoked, {"name": revoked.name})
            return revoked

        revoked = await self._context.database.write(revoke)
        if revoked is None:
            raise not_found(KEY_KIND, key)
        self._context.cache.drop_key(revoked.digest)
        self._context.engine.relay.end_streams_of_key(revoked.id)

    def _require_own_scopes(self, caller: Caller, key: ApiKey) -> None:
        """Check that the caller has all of the key's scopes.

        Raises Forbidden, or ConfirmationRequired for a key that can read secrets.
        """
        for scope in Scope:
            if scope in key.scopes:
                caller.require(scope)
        if Scope.SECRETS_READ in key.scopes:
            caller.require_confirmed(self._context.now())

    def _audit(
        self, connection: Transaction, caller: Caller, action: str, key: ApiKey, details: Mapping[str, object]
    ) -> None:
        subject = ids.prefixed(ids.KEY, key.id)
        audit.add(connection, self._context.audit_entry(caller, action, subject, details, key.account_seq))


def _excess_scopes(caller: Caller, draft: KeyDraft) -> list[Problem]:
    """Return a problem for each scope in the request that the caller does not have."""
    excess = [scope for scope in Scope if scope in draft.scopes_or_default() and not caller.principal.allows(scope)]
    text = "Your role does not include the scope {}, so you cannot create a key with it. Ask the operator for the key."
    return [Problem("scopes", "scope_not_yours", text.format(scope)) for scope in excess]


def created_details(key: ApiKey | ServiceKey) -> dict[str, object]:
    """Describe a new key for the audit log."""
    details: dict[str, object] = {"name": key.name, "scopes": sorted(key.scopes)}
    return details if key.expires_at is None else {**details, "expires_at": format_timestamp(key.expires_at)}


def changed_details(before: ApiKey | ServiceKey, after: ApiKey | ServiceKey) -> dict[str, object]:
    """Describe a key's update for the audit log."""
    return difference(_fields(before), _fields(after), shown=_FIELDS)


def _fields(key: ApiKey | ServiceKey) -> dict[str, object]:
    return {"name": key.name, "expires_at": None if key.expires_at is None else format_timestamp(key.expires_at)}


def new_key_text(prefix: str, random_bytes: bytes) -> str:
    """Return the text of a new key."""
    return prefix + random_bytes.hex()
