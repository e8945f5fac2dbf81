"""API keys: operators make and revoke them, and members who may. The text of one is known only when it is made."""

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
from uplift_server.service.idempotency import Repeat, check_repeat, request_of
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, parse_id, refusal, refuse
from uplift_server.store import audit, idempotency, keys
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict
from uplift_server.store.records import Account, ApiKey, Page

KEY_RANDOM_BYTES: Final = 24
_WHAT: Final = "key"


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """What is said of a new key."""

    name: str | Unset = UNSET
    scopes: Sequence[str] | Unset | None = UNSET

    def problems(self) -> list[Problem]:
        """What is wrong with it."""
        name = None if isinstance(self.name, Unset) else check_name(self.name)
        scopes = () if isinstance(self.scopes, Unset) or self.scopes is None else self.scopes
        return ([] if name is None else [name]) + check_scopes(scopes)

    def granted(self) -> frozenset[str]:
        """The scopes it asks for: the default ones where it names none."""
        return frozenset(DEFAULT_SCOPES if isinstance(self.scopes, Unset) or self.scopes is None else self.scopes)


class Keys:
    """What is done with the keys of accounts."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def create(
        self,
        caller: Caller,
        account: str,
        draft: KeyDraft,
        *,
        repeat: Repeat | None = None,
        problems: Sequence[Problem] = (),
    ) -> tuple[ApiKey, str | None]:
        """Make a key of an account; with its text, unless this repeats an earlier request. Raises NotFound.

        Nobody gives a key what they may not do themselves. Raises ConfirmationRequired where a key that reads secrets
        would spare somebody the password that seeing them takes.
        """
        caller.require_right(Right.KEYS_MANAGE)
        owner = self._context.account_of(caller, account)
        refuse([*problems, *draft.problems(), *_beyond(caller, draft), *check_repeat(repeat)])
        if Scope.SECRETS_READ in draft.granted():
            caller.require_confirmed(self._context.now())
        return await self._context.carry_out(self._create(caller, owner, draft, repeat))

    async def page(
        self, caller: Caller, account: str, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[ApiKey]:
        """The keys of an account, newest first. Raises NotFound."""
        caller.require_right(Right.KEYS_MANAGE)
        owner = self._context.account_of(caller, account)
        before = self._context.place(listing, 1, problems)
        return await self._context.database.read(lambda c: keys.page(c, owner.seq, limit=listing.limit, before=before))

    async def revoke(self, caller: Caller, account: str, key: str) -> None:
        """Revoke a key; it is refused from then on. Raises NotFound."""
        caller.require_right(Right.KEYS_MANAGE)
        owner = self._context.account_of(caller, account)
        await self._context.carry_out(self._revoke(caller, owner, key))

    async def _create(
        self, caller: Caller, owner: Account, draft: KeyDraft, repeat: Repeat | None
    ) -> tuple[ApiKey, str | None]:
        text = new_key_text(ACCOUNT_PREFIX, self._context.random_bytes(KEY_RANDOM_BYTES))
        now, key_id = self._context.now(), self._context.new_id()
        name, scopes = given(draft.name), draft.granted()
        request = request_of(repeat, owner.seq, _WHAT)

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
            self._note(connection, caller, "key.created", key, details)
            return key

        try:
            key, repeated = await self._context.database.write(
                lambda c: idempotency.once(
                    c,
                    request,
                    object_id=key_id,
                    now=now,
                    create=lambda: create(c),
                    load=lambda earlier: keys.get(c, owner.seq, earlier),
                )
            )
        except Conflict as error:
            raise refusal(error) from error
        if repeated:
            return key, None
        self._context.cache.put_key(key)
        return key, text

    async def _revoke(self, caller: Caller, owner: Account, key: str) -> None:
        now, key_id = self._context.now(), parse_id(ids.KEY, key, _WHAT)

        def revoke(connection: Transaction) -> ApiKey | None:
            revoked = keys.revoke(connection, owner.seq, key_id, now=now)
            if revoked is not None:
                self._note(connection, caller, "key.revoked", revoked, {"name": revoked.name})
            return revoked

        revoked = await self._context.database.write(revoke)
        if revoked is None:
            raise not_found(_WHAT, key)
        self._context.cache.drop_key(revoked.digest)
        self._context.engine.relay.end_of_key(revoked.id)

    def _note(
        self, connection: Transaction, caller: Caller, action: str, key: ApiKey, details: Mapping[str, object]
    ) -> None:
        subject = ids.prefixed(ids.KEY, key.id)
        audit.add(connection, self._context.entry(caller, action, subject, details, key.account_seq))


def _beyond(caller: Caller, draft: KeyDraft) -> list[Problem]:
    """The scopes a new key would have that its maker has not."""
    beyond = [scope for scope in Scope if scope in draft.granted() and not caller.principal.allows(scope)]
    text = "Your own role does not include {}, so no key that you make can have it. Ask the operator for one."
    return [Problem("scopes", "scope_not_yours", text.format(scope)) for scope in beyond]


def new_key_text(prefix: str, random_bytes: bytes) -> str:
    """The text of a key: its prefix and random characters."""
    return prefix + random_bytes.hex()
