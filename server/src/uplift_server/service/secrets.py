"""Secrets of endpoints: showing and replacing them. Every time one is shown or changed, the audit log says so."""

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
from uplift_server.service.idempotency import Repeat, check_repeat, request_of
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, refusal, refuse
from uplift_server.store import audit, endpoints, idempotency
from uplift_server.store.contract import Transaction
from uplift_server.store.encryption import Cipher
from uplift_server.store.encryption_upgrade import must_bind
from uplift_server.store.errors import Conflict
from uplift_server.store.records import Endpoint

T = TypeVar("T")

_UNCHANGED: Final = Problem(
    "secret",
    "secret_unchanged",
    "This is the current secret already. Choose another, or leave it out and we make one.",
)


@dataclass(frozen=True, slots=True)
class RotationDraft:
    """What is said of a new secret; what is not said, or None, is as usual."""

    secret: str | Unset | None = field(default=UNSET, repr=False)
    """The new one; otherwise we make one."""
    overlap_seconds: int | Unset | None = UNSET
    """How long the present one stays live beside it; by the edge within SECRET_OVERLAP_SECONDS_MAX."""
    uplift_header: str | Unset | None = UNSET
    """`old` or `new`: which one `x-uplift-signature-256` follows meanwhile."""

    def problems(self) -> list[Problem]:
        """What is wrong with it, as far as that can be seen from itself."""
        secret = given_or_none(self.secret)
        wrong = None if secret is None else check_secret(secret)
        return [] if wrong is None else [wrong]

    @property
    def overlap_ms(self) -> int:
        """How long both are live."""
        seconds = given_or_none(self.overlap_seconds)
        return (SECRET_OVERLAP_SECONDS_DEFAULT if seconds is None else seconds) * 1000

    @property
    def header_new(self) -> bool:
        """Whether `x-uplift-signature-256` changes at once."""
        return given_or_none(self.uplift_header) == "new"


@dataclass(frozen=True, slots=True)
class ShownSecrets:
    """An endpoint's secrets as its owner may see them now."""

    pair: SecretPair[bytes]
    """As they stand now, sealed."""
    secret: str | None = field(default=None, repr=False)
    """Where it is shown: to whoever may read it, and in the answer to its making."""
    repeated: bool = False


# Raised within transactions: an error of the store undoes its own part of one alone, any other the whole.
class _Gone(Conflict):
    """The endpoint was deleted meanwhile."""


class _Unchanged(Conflict):
    """The chosen secret is the current one."""


class Secrets:
    """What owners do with their endpoints' secrets."""

    def __init__(self, context: ServiceContext, cipher: Cipher, owned: Endpoints) -> None:
        self._context = context
        self._cipher = cipher
        self._owned = owned

    async def reveal(self, caller: Caller, endpoint: str) -> ShownSecrets:
        """The current secret. It is not shown unless the audit log says so. Raises NotFound."""
        caller.require(Scope.SECRETS_READ)
        caller.require_confirmed(self._context.now())
        live = self._owned.live(caller, endpoint)

        def reveal(connection: Transaction) -> Endpoint:
            found = self._stored(connection, live)
            self._audit(connection, caller, "secret.revealed", found)
            return found

        found = await self._write(live, reveal)
        return self._shown(found, self._open(found.secret, found))

    async def rotate(
        self,
        caller: Caller,
        endpoint: str,
        draft: RotationDraft,
        *,
        repeat: Repeat | None = None,
        problems: Sequence[Problem] = (),
    ) -> ShownSecrets:
        """Replace the secret; the new one is in the answer, unless this repeats an earlier request. Raises NotFound."""
        caller.require(Scope.SECRETS_WRITE)
        live = self._owned.live(caller, endpoint)
        wrong = [*problems, *draft.problems(), *check_repeat(repeat)]
        # Alone, this is for the transaction to find: a repeat asks for the secret that is the current one by then.
        refuse([*wrong, *self._unchanged(draft, live)] if wrong else [])
        return await self._context.carry_out(self._rotate(caller, live, draft, repeat))

    async def expire_old(self, caller: Caller, endpoint: str, *, problems: Sequence[Problem] = ()) -> ShownSecrets:
        """End the previous secret now, if there is one. Raises NotFound."""
        caller.require(Scope.SECRETS_WRITE)
        live = self._owned.live(caller, endpoint)
        refuse(problems)
        return await self._context.carry_out(self._expire_old(caller, live))

    async def _rotate(
        self, caller: Caller, live: Endpoint, draft: RotationDraft, repeat: Repeat | None
    ) -> ShownSecrets:
        now = self._context.now()
        chosen = given_or_none(draft.secret)
        secret = chosen or generate_secret(self._context.random_bytes(SECRET_KEY_BYTES_GENERATED))
        request = request_of(repeat, live.account_seq, f"secret of {live.id.hex()}")

        def rotate(connection: Transaction) -> Endpoint:
            bound = must_bind(connection, self._cipher)
            stored = self._stored(connection, live)
            if self._unchanged(draft, stored):
                raise _Unchanged
            sealed = self._cipher.encrypt(secret, live.id, "secret", bound=bound)
            pair = stored.secrets.at(now).rotated(sealed, now, draft.overlap_ms, header_new=draft.header_new)
            if pair.previous is not None:
                before = self._open(pair.previous, stored)
                pair = replace(pair, previous=self._cipher.encrypt(before, live.id, "previous_secret", bound=bound))
            details = {
                "chosen": chosen is not None,
                "overlap_seconds": draft.overlap_ms // 1000,
                "uplift_header": pair.uplift_header,
            }
            self._audit(connection, caller, "secret.rotated", stored, details)
            return endpoints.set_secrets(connection, stored, pair, now=now)

        def rotate_once(connection: Transaction) -> tuple[Endpoint, bool]:
            return idempotency.once(
                connection,
                request,
                object_id=live.id,
                now=now,
                create=lambda: rotate(connection),
                load=lambda earlier: endpoints.get(connection, live.account_seq, earlier),
            )

        changed, repeated = await self._write(live, rotate_once)
        if repeated:
            return self._shown(changed, repeated=True)
        self._context.cache.put_endpoint(changed)
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
        self._context.cache.put_endpoint(changed)
        return self._shown(changed)

    async def _write(self, live: Endpoint, body: Callable[[Transaction], T]) -> T:
        """Run a transaction about an endpoint; what it raises comes as a refusal."""
        try:
            return await self._context.database.write(body)
        except _Gone:
            raise not_found("endpoint", ids.prefixed(ids.ENDPOINT, live.id)) from None
        except _Unchanged:
            raise Invalid([_UNCHANGED]) from None
        except Conflict as error:
            raise refusal(error) from error

    def _stored(self, connection: Transaction, live: Endpoint) -> Endpoint:
        """The endpoint as the transaction sees it."""
        found = endpoints.get(connection, live.account_seq, live.id)
        if found is None:
            raise _Gone
        return found

    def _unchanged(self, draft: RotationDraft, endpoint: Endpoint) -> list[Problem]:
        """That the chosen secret is the current one, if it is."""
        chosen = given_or_none(draft.secret)
        # As bytes, since what was chosen may be no ASCII; in a time that does not tell how much of it is right.
        same = chosen is not None and compare_digest(chosen.encode(), self._open(endpoint.secret, endpoint).encode())
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
        audit.add(connection, self._context.entry(caller, action, subject, details, endpoint.account_seq))

    def _open(self, sealed: bytes, endpoint: Endpoint) -> str:
        return self._cipher.decrypt(sealed, endpoint.id, "secret")

    def _shown(self, endpoint: Endpoint, secret: str | None = None, *, repeated: bool = False) -> ShownSecrets:
        return ShownSecrets(endpoint.secrets.at(self._context.now()), secret, repeated)
