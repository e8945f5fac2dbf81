"""Endpoints' signing secrets. The audit log records every reveal and change."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hmac import compare_digest
from types import MappingProxyType
from typing import Final, TypeVar

from uplift_server.core import ids
from uplift_server.core.limits import SECRET_KEY_BYTES_GENERATED, SECRET_OVERLAP_SECONDS_DEFAULT
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.core.security.secrets import SecretPair
from uplift_server.core.security.signing import check_secret, generate_secret
from uplift_server.service.context import ServiceContext
from uplift_server.service.endpoints import Endpoints
from uplift_server.service.errors import Invalid
from uplift_server.service.fields import UNSET, Unset, given_or_none
from uplift_server.service.idempotency import IdempotencyKey, check_idempotency_key, create_once, idempotent_request
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import as_conflict, not_found, require_valid
from uplift_server.store import audit, endpoints
from uplift_server.store.contract import Transaction
from uplift_server.store.encryption import Cipher
from uplift_server.store.encryption_upgrade import must_bind
from uplift_server.store.errors import Conflict
from uplift_server.store.records import Endpoint

T = TypeVar("T")

_UNCHANGED: Final = Problem(
    "secret",
    "secret_unchanged",
    "The endpoint already has this secret. Use another secret, or omit the field to let the server generate one.",
)


@dataclass(frozen=True, slots=True)
class RotationDraft:
    """The rotation fields in a request. Absent fields and fields with the value None get their defaults."""

    secret: str | Unset | None = field(default=UNSET, repr=False)
    """The new secret. By default, the server generates one."""
    overlap_seconds: int | Unset | None = UNSET
    """How long the old secret remains active, in seconds. The maximum is SECRET_OVERLAP_SECONDS_MAX."""
    uplift_header: str | Unset | None = UNSET
    """The secret that signs `x-uplift-signature-256` during the overlap: `old` or `new`."""

    def problem(self) -> Problem | None:
        """Return a problem if the new secret is invalid."""
        secret = given_or_none(self.secret)
        return None if secret is None else check_secret(secret)

    @property
    def overlap_ms(self) -> int:
        """The time in ms during which the old and the new secret are both active."""
        seconds = given_or_none(self.overlap_seconds)
        return (SECRET_OVERLAP_SECONDS_DEFAULT if seconds is None else seconds) * 1000

    @property
    def header_new(self) -> bool:
        """Whether `x-uplift-signature-256` uses the new secret immediately."""
        return given_or_none(self.uplift_header) == "new"


@dataclass(frozen=True, slots=True)
class ShownSecrets:
    """The secrets of an endpoint as its owner sees them."""

    pair: SecretPair[bytes]
    """The current secret and, until it expires, the old secret, both encrypted."""
    secret: str | None = field(default=None, repr=False)
    """The current secret in plain text. None unless the response reveals it."""
    repeated: bool = False


# Transactions raise these errors, and `_write` converts them to service errors.
class _Deleted(Conflict):
    """The endpoint was deleted during the request."""


class _Unchanged(Conflict):
    """The new secret in the request is the same as the current secret."""


class Secrets:
    """Reveals and rotates the secrets of endpoints."""

    def __init__(self, context: ServiceContext, cipher: Cipher, endpoints: Endpoints) -> None:
        self._context = context
        self._cipher = cipher
        self._endpoints = endpoints

    async def reveal(self, caller: Caller, endpoint: str) -> ShownSecrets:
        """Record the reveal in the audit log, then return the current secret. Raises NotFound."""
        caller.require(Scope.SECRETS_READ)
        caller.require_confirmed(self._context.now())
        live = self._endpoints.find_cached(caller, endpoint)

        def reveal(connection: Transaction) -> Endpoint:
            found = self._stored(connection, live)
            self._audit(connection, caller, "secret.revealed", found)
            return found

        found = await self._write(live, reveal)
        return self._shown(found, self._decrypt(found.secret, found))

    async def rotate(
        self,
        caller: Caller,
        endpoint: str,
        draft: RotationDraft,
        *,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
    ) -> ShownSecrets:
        """Replace the current secret. Raises NotFound or Invalid.

        The result contains the new secret in plain text, unless the request repeats an earlier request.
        """
        caller.require(Scope.SECRETS_WRITE)
        live = self._endpoints.find_cached(caller, endpoint)
        found = [*problems, draft.problem(), check_idempotency_key(idempotency_key)]
        # If there are no other problems, compare the secrets only in the transaction.
        # A repeated request contains the current secret, and must succeed.
        require_valid([*found, *self._unchanged(draft, live)] if any(found) else [])
        return await self._context.run_shielded(self._rotate(caller, live, draft, idempotency_key))

    async def expire_old(self, caller: Caller, endpoint: str, *, problems: Sequence[Problem] = ()) -> ShownSecrets:
        """Expire the old secret now, if the endpoint has one. Raises NotFound."""
        caller.require(Scope.SECRETS_WRITE)
        live = self._endpoints.find_cached(caller, endpoint)
        require_valid(problems)
        return await self._context.run_shielded(self._expire_old(caller, live))

    async def _rotate(
        self, caller: Caller, live: Endpoint, draft: RotationDraft, idempotency_key: IdempotencyKey | None
    ) -> ShownSecrets:
        now = self._context.now()
        chosen = given_or_none(draft.secret)
        secret = chosen or generate_secret(self._context.random_bytes(SECRET_KEY_BYTES_GENERATED))
        request = idempotent_request(idempotency_key, live.account_seq, f"secret of {live.id.hex()}")

        def rotate(connection: Transaction) -> Endpoint:
            bound = must_bind(connection, self._cipher)
            stored = self._stored(connection, live)
            if self._unchanged(draft, stored):
                raise _Unchanged
            encrypted = self._cipher.encrypt(secret, live.id, "secret", bound=bound)
            pair = stored.secrets.at(now).rotated(encrypted, now, draft.overlap_ms, header_new=draft.header_new)
            if pair.previous is not None:
                previous = self._decrypt(pair.previous, stored)
                pair = replace(pair, previous=self._cipher.encrypt(previous, live.id, "previous_secret", bound=bound))
            details = {
                "chosen": chosen is not None,
                "overlap_seconds": draft.overlap_ms // 1000,
                "uplift_header": pair.uplift_header,
            }
            self._audit(connection, caller, "secret.rotated", stored, details)
            return endpoints.set_secrets(connection, stored, pair, now=now)

        def load(connection: Transaction, earlier: bytes) -> Endpoint | None:
            return endpoints.get(connection, live.account_seq, earlier)

        changed, repeated = await self._write(live, create_once(request, live.id, now, rotate, load))
        if repeated:
            return self._shown(changed, repeated=True)
        self._context.engine.endpoints.apply(changed)
        return self._shown(changed, secret)

    async def _expire_old(self, caller: Caller, live: Endpoint) -> ShownSecrets:
        now = self._context.now()

        def expire(connection: Transaction) -> Endpoint:
            must_bind(connection, self._cipher)
            stored = self._stored(connection, live)
            if stored.secrets.at(now).previous is None:
                return stored
            self._audit(connection, caller, "secret.old_expired", stored)
            return endpoints.set_secrets(connection, stored, stored.secrets.without_previous(), now=now)

        changed = await self._write(live, expire)
        self._context.engine.endpoints.apply(changed)
        return self._shown(changed)

    async def _write(self, live: Endpoint, body: Callable[[Transaction], T]) -> T:
        """Run a transaction on an endpoint. Raises service errors instead of store errors."""
        try:
            return await self._context.database.write(body)
        except _Deleted:
            raise not_found("endpoint", ids.prefixed(ids.ENDPOINT, live.id)) from None
        except _Unchanged:
            raise Invalid([_UNCHANGED]) from None
        except Conflict as error:
            raise as_conflict(error) from error

    def _stored(self, connection: Transaction, live: Endpoint) -> Endpoint:
        """Lock the stored endpoint, and return its record."""
        found = endpoints.get(connection, live.account_seq, live.id, lock=True)
        if found is None:
            raise _Deleted
        return found

    def _unchanged(self, draft: RotationDraft, endpoint: Endpoint) -> list[Problem]:
        """Return a problem if the new secret in the request is the same as the current secret."""
        chosen = given_or_none(draft.secret)
        # Compare in constant time, and as bytes, because the chosen text may not be ASCII.
        same = chosen is not None and compare_digest(chosen.encode(), self._decrypt(endpoint.secret, endpoint).encode())
        return [_UNCHANGED] if same else []

    def _audit(
        self,
        connection: Transaction,
        caller: Caller,
        action: str,
        endpoint: Endpoint,
        details: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        subject = ids.prefixed(ids.ENDPOINT, endpoint.id)
        audit.add(connection, self._context.audit_entry(caller, action, subject, details, endpoint.account_seq))

    def _decrypt(self, encrypted: bytes, endpoint: Endpoint) -> str:
        return self._cipher.decrypt(encrypted, endpoint.id, "secret")

    def _shown(self, endpoint: Endpoint, secret: str | None = None, *, repeated: bool = False) -> ShownSecrets:
        return ShownSecrets(endpoint.secrets.at(self._context.now()), secret, repeated)
