"""API keys. The server knows the text of a key only when it creates the key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from uplift_server.core import ids
from uplift_server.core.people.accounts import check_name
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import Right
from uplift_server.core.security.scopes import DEFAULT_SCOPES, Scope, check_scopes
from uplift_server.service.authentication import ACCOUNT_PREFIX, digest_of, ending_of
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.fields import UNSET, Unset, given
from uplift_server.service.idempotency import IdempotencyKey, check_idempotency_key, create_once, idempotent_request
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, parse_id, require_valid
from uplift_server.store import audit, keys
from uplift_server.store.contract import Transaction
from uplift_server.store.records import Account, ApiKey, Page

KEY_RANDOM_BYTES: Final = 24
_KIND: Final = "key"


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """The fields of a new key in a request."""

    name: str | Unset = UNSET
    scopes: Sequence[str] | Unset | None = UNSET

    def problems(self) -> list[Problem | None]:
        """Return the problems with the fields."""
        name = None if isinstance(self.name, Unset) else check_name(self.name)
        scopes = () if isinstance(self.scopes, Unset) or self.scopes is None else self.scopes
        return [name, *check_scopes(scopes)]

    def scopes_or_default(self) -> frozenset[str]:
        """Return the requested scopes, or the default scopes."""
        return frozenset(DEFAULT_SCOPES if isinstance(self.scopes, Unset) or self.scopes is None else self.scopes)


class Keys:
    """Manages the keys of accounts."""

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
        """Create a key of an account. Return it with its text, or with None if the request is repeated.

        The key can have only scopes of the caller. Raises NotFound, Invalid, and ConfirmationRequired for a key that
        can read secrets, because a person must confirm the password to see secrets.
        """
        caller.require_right(Right.KEYS_MANAGE)
        owner = self._context.find_account(caller, account)
        require_valid(
            [*problems, *draft.problems(), *_excess_scopes(caller, draft), check_idempotency_key(idempotency_key)]
        )
        if Scope.SECRETS_READ in draft.scopes_or_default():
            caller.require_confirmed(self._context.now())
        return await self._context.run_shielded(self._create(caller, owner, draft, idempotency_key))

    async def page(
        self, caller: Caller, account: str, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[ApiKey]:
        """Return the keys of an account, newest first. Raises NotFound."""
        caller.require_right(Right.KEYS_MANAGE)
        owner = self._context.find_account(caller, account)
        before = self._context.decode_cursor(listing, 1, problems)
        return await self._context.database.read(lambda c: keys.page(c, owner.seq, limit=listing.limit, before=before))

    async def revoke(self, caller: Caller, account: str, key: str) -> None:
        """Revoke a key immediately. Raises NotFound."""
        caller.require_right(Right.KEYS_MANAGE)
        owner = self._context.find_account(caller, account)
        await self._context.run_shielded(self._revoke(caller, owner, key))

    async def _create(
        self, caller: Caller, owner: Account, draft: KeyDraft, idempotency_key: IdempotencyKey | None
    ) -> tuple[ApiKey, str | None]:
        text = new_key_text(ACCOUNT_PREFIX, self._context.random_bytes(KEY_RANDOM_BYTES))
        now, key_id = self._context.now(), self._context.new_id()
        name, scopes = given(draft.name), draft.scopes_or_default()
        request = idempotent_request(idempotency_key, owner.seq, _KIND)

        def create(connection: Transaction) -> ApiKey:
            key = keys.create(
                connection,
                key_id=key_id,
                account_seq=owner.seq,
                name=name,
                digest=digest_of(text.encode()),
                ends_with=ending_of(text),
                scopes=scopes,
                now=now,
            )
            details = {"name": name, "scopes": sorted(scopes)}
            self._audit(connection, caller, "key.created", key, details)
            return key

        def load(connection: Transaction, earlier: bytes) -> ApiKey | None:
            return keys.get(connection, owner.seq, earlier)

        key, repeated = await self._context.write(create_once(request, key_id, now, create, load))
        if repeated:
            return key, None
        self._context.cache.put_key(key)
        return key, text

    async def _revoke(self, caller: Caller, owner: Account, key: str) -> None:
        now, key_id = self._context.now(), parse_id(ids.KEY, key, _KIND)

        def revoke(connection: Transaction) -> ApiKey | None:
            revoked = keys.revoke(connection, owner.seq, key_id, now=now)
            if revoked is not None:
                self._audit(connection, caller, "key.revoked", revoked, {"name": revoked.name})
            return revoked

        revoked = await self._context.database.write(revoke)
        if revoked is None:
            raise not_found(_KIND, key)
        self._context.cache.drop_key(revoked.digest)
        self._context.engine.relay.end_streams_of_key(revoked.id)

    def _audit(
        self, connection: Transaction, caller: Caller, action: str, key: ApiKey, details: Mapping[str, object]
    ) -> None:
        subject = ids.prefixed(ids.KEY, key.id)
        audit.add(connection, self._context.audit_entry(caller, action, subject, details, key.account_seq))


def _excess_scopes(caller: Caller, draft: KeyDraft) -> list[Problem]:
    """Return a problem for each requested scope that the caller does not have."""
    excess = [scope for scope in Scope if scope in draft.scopes_or_default() and not caller.principal.allows(scope)]
    text = "Your role does not include the scope {}, so you cannot create a key with it. Ask the operator for the key."
    return [Problem("scopes", "scope_not_yours", text.format(scope)) for scope in excess]


def new_key_text(prefix: str, random_bytes: bytes) -> str:
    """Return the text of a new key."""
    return prefix + random_bytes.hex()
