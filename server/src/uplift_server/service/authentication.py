"""Authenticates callers with the API keys in the cache. Therefore, authentication works during a database outage."""

import hashlib
from typing import Final

from uplift_server.core.timestamps import format_timestamp
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.ports import Clock
from uplift_server.service.errors import NotFound, Unauthorized
from uplift_server.service.principals import Caller, Principal

OPERATOR_PREFIX: Final = "op_"
ACCOUNT_PREFIX: Final = "sk_"
SERVICE_PREFIX: Final = "svc_"
KEY_BYTES_MAX: Final = 512

_SCHEME: Final = b"bearer "
_SCHEME_BYTES: Final = len(_SCHEME)
_VISIBLE_CHARACTERS: Final = 4


def digest_of(key: bytes) -> bytes:
    """Return the SHA-256 digest of a key. The server stores the digest instead of the key.

    A slower hash is not necessary, because keys are random.
    """
    return hashlib.sha256(key).digest()


def ending_of(key: str) -> str:
    """Return the last characters of a key, so that people can recognize the key."""
    return key[-_VISIBLE_CHARACTERS:]


class Authenticator:
    """Identifies callers by the API keys in the cache. A revoked key is removed from the cache immediately."""

    def __init__(self, cache: EndpointCache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock

    def principal(self, authorization: bytes | None) -> Principal:
        """Return the principal that an `Authorization` header identifies. Raises Unauthorized.

        The lookup uses the key's digest, so the duration of the lookup reveals nothing about any key.
        """
        if authorization is None or authorization[:_SCHEME_BYTES].lower() != _SCHEME:
            raise Unauthorized
        key = authorization[_SCHEME_BYTES:].strip(b" ")
        digest = b"" if len(key) > KEY_BYTES_MAX else hashlib.sha256(key).digest()
        found = self._cache.keys.get(digest)
        if found is not None:
            if found.expires_at is not None:
                self._require_unexpired(found.expires_at)
            return Principal.of_key(found.id, found.account_seq, found.scopes, found.name)
        service_key = self._cache.service_keys.get(digest)
        if service_key is None:
            raise Unauthorized(
                "The API key is unknown or revoked. Check that you copied the whole key, or create a new one."
            )
        if service_key.expires_at is not None:
            self._require_unexpired(service_key.expires_at)
        return Principal.of_service_key(service_key.id, service_key.scopes, service_key.name)

    def _require_unexpired(self, expires_at: int) -> None:
        if self._clock.now_ms() >= expires_at:
            raise Unauthorized(f"The API key expired at {format_timestamp(expires_at)}. Create a new one.")

    def caller(self, authorization: bytes | None, account: str | None, address: str | None = None) -> Caller:
        """Return the caller, acting for its own account or for the account in the header `Uplift-Account`.

        Operators and service keys can name any account. Raises Unauthorized, or NotFound if the account does not exist
        or does not belong to the caller.
        """
        principal = self.principal(authorization)
        if account is None:
            return Caller(principal, principal.account_seq, address)
        found = self._cache.find_account(account)
        if found is None or principal.account_seq not in {None, found.seq}:
            raise NotFound(
                f"The account {account[:64]} does not exist. Check the ID or uid in the header `Uplift-Account`."
            )
        return Caller(principal, found.seq, address)
