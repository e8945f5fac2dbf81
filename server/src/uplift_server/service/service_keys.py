"""Service keys, which act for all accounts within their scopes. Only operators manage service keys."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from uplift_server.core import ids
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import SERVICE_SCOPES, Scope
from uplift_server.service.authentication import SERVICE_PREFIX, digest_of, ending_of
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.fields import given, given_or
from uplift_server.service.idempotency import IdempotencyKey, check_idempotency_key, create_once, idempotent_request
from uplift_server.service.keys import KEY_RANDOM_BYTES, KeyDraft, changed_details, created_details, new_key_text
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, parse_id, require_valid
from uplift_server.store import audit, idempotency, service_keys
from uplift_server.store.contract import Transaction
from uplift_server.store.records import Page, ServiceKey

_KIND: Final = "service key"


class ServiceKeys:
    """Creates, reads, updates and revokes service keys."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def create(
        self,
        caller: Caller,
        draft: KeyDraft,
        *,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
    ) -> tuple[ServiceKey, str | None]:
        """Create a service key. Return the key and its text, which is None if the request is repeated.

        Raises Invalid, or ConfirmationRequired for a key that can read secrets, because a person must enter the
        password again to see secrets.
        """
        caller.require_operator()
        found = draft.problems(self._context.now(), known=SERVICE_SCOPES)
        require_valid([*problems, *found, check_idempotency_key(idempotency_key)])
        if Scope.SECRETS_READ in draft.scopes_or_default():
            caller.require_confirmed(self._context.now())
        return await self._context.run_shielded(self._create(caller, draft, idempotency_key))

    async def page(self, caller: Caller, listing: Listing, *, problems: Sequence[Problem] = ()) -> Page[ServiceKey]:
        """Return a page of service keys, newest first."""
        caller.require_operator(reads=True)
        request = self._context.page_request(listing, 1, problems)
        return await self._context.database.read(lambda c: service_keys.page(c, request))

    async def get(self, caller: Caller, key: str) -> ServiceKey:
        """Return a service key. Raises NotFound."""
        caller.require_operator(reads=True)
        key_id = parse_id(ids.KEY, key, _KIND)
        found = await self._context.database.read(lambda c: service_keys.get(c, key_id))
        if found is None:
            raise not_found(_KIND, key)
        return found

    async def update(
        self, caller: Caller, key: str, draft: KeyDraft, *, problems: Sequence[Problem] = ()
    ) -> ServiceKey:
        """Update a service key's name and expiry.

        Raises NotFound or Invalid. Raises ConfirmationRequired if the request changes the expiry and the key can read
        secrets.
        """
        caller.require_operator()
        require_valid([*problems, *draft.problems(self._context.now())])
        return await self._context.run_shielded(self._update(caller, key, draft))

    async def revoke(self, caller: Caller, key: str) -> None:
        """Revoke a service key immediately. Raises NotFound."""
        caller.require_operator()
        await self._context.run_shielded(self._revoke(caller, key))

    async def _create(
        self, caller: Caller, draft: KeyDraft, idempotency_key: IdempotencyKey | None
    ) -> tuple[ServiceKey, str | None]:
        text = new_key_text(SERVICE_PREFIX, self._context.random_bytes(KEY_RANDOM_BYTES))
        now, key_id = self._context.now(), self._context.new_id()
        request = idempotent_request(idempotency_key, idempotency.NO_ACCOUNT, _KIND)

        def create(connection: Transaction) -> ServiceKey:
            key = service_keys.create(
                connection,
                key_id=key_id,
                name=given(draft.name),
                digest=digest_of(text.encode()),
                ends_with=ending_of(text),
                scopes=draft.scopes_or_default(),
                expires_at=draft.expiry_or(None),
                now=now,
            )
            self._audit(connection, caller, "key.created", key, created_details(key))
            return key

        key, repeated = await self._context.write(create_once(request, key_id, now, create, service_keys.get))
        if repeated:
            return key, None
        self._context.cache.put_service_key(key)
        return key, text

    async def _update(self, caller: Caller, key: str, draft: KeyDraft) -> ServiceKey:
        key_id = parse_id(ids.KEY, key, _KIND)

        def update(connection: Transaction) -> ServiceKey | None:
            details: dict[str, object] = {}

            def change(stored: ServiceKey) -> ServiceKey:
                changed = replace(
                    stored, name=given_or(draft.name, stored.name), expires_at=draft.expiry_or(stored.expires_at)
                )
                if changed.expires_at != stored.expires_at and Scope.SECRETS_READ in stored.scopes:
                    caller.require_confirmed(self._context.now())
                details.update(changed_details(stored, changed))
                return changed

            changed = service_keys.update(connection, key_id, change)
            if changed is not None and details:
                self._audit(connection, caller, "key.changed", changed, details)
            return changed

        changed = await self._context.database.write(update)
        if changed is None:
            raise not_found(_KIND, key)
        self._context.cache.put_service_key(changed)
        return changed

    async def _revoke(self, caller: Caller, key: str) -> None:
        now, key_id = self._context.now(), parse_id(ids.KEY, key, _KIND)

        def revoke(connection: Transaction) -> ServiceKey | None:
            revoked = service_keys.revoke(connection, key_id, now=now)
            if revoked is not None:
                self._audit(connection, caller, "key.revoked", revoked, {"name": revoked.name})
            return revoked

        revoked = await self._context.database.write(revoke)
        if revoked is None:
            raise not_found(_KIND, key)
        self._context.cache.drop_service_key(revoked.digest)
        self._context.engine.relay.end_streams_of_key(revoked.id)

    def _audit(
        self, connection: Transaction, caller: Caller, action: str, key: ServiceKey, details: Mapping[str, object]
    ) -> None:
        subject = ids.prefixed(ids.KEY, key.id)
        audit.add(connection, self._context.audit_entry(caller, action, subject, {"kind": _KIND, **details}, None))
