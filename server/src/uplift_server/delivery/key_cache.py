"""In-memory cache of API keys and service keys. It also records changes to cached records."""

import contextlib
from collections.abc import Iterator

from uplift_server.store.records import ApiKey, ServiceKey

RecordKey = tuple[str, int | str | bytes]
"""The table of a cached record, and the key of the record in the cache.

The key is a row number, the digest of an API key, or the name of an event type.
"""


class KeyCache:
    """In-memory cache of all API keys and service keys that are not revoked."""

    def __init__(self) -> None:
        self.keys: dict[bytes, ApiKey] = {}
        """The API keys of accounts and operators, by the digest of the key."""
        self.service_keys: dict[bytes, ServiceKey] = {}
        self.key_expiries: dict[bytes, int] = {}
        """The expiry time of each key that expires (Unix ms), by key ID."""
        self._has_set_operator_key = False
        self._changed: list[set[RecordKey]] = []
        """For each open `changes` block: the records that changed since its start."""

    @contextlib.contextmanager
    def changes(self) -> Iterator[set[RecordKey]]:
        """Collect the records that are added, replaced or removed within the `with` block."""
        changed: set[RecordKey] = set()
        self._changed.append(changed)
        try:
            yield changed
        finally:
            self._changed = [each for each in self._changed if each is not changed]

    def _note(self, table: str, subject: int | str | bytes) -> None:
        for changed in self._changed:
            changed.add((table, subject))

    def put_key(self, key: ApiKey) -> None:
        """Add an API key to the cache. Skip a stored operator key if the settings contain an operator key."""
        self._note("api_keys", key.digest)
        if key.account_seq is not None or not self._has_set_operator_key:
            self.keys[key.digest] = key
            self._note_expiry(key)

    def set_operator_key(self, key: ApiKey) -> None:
        """Replace all operator keys with the operator key in the settings."""
        self.keys = {digest: each for digest, each in self.keys.items() if each.account_seq is not None}
        self.keys[key.digest] = key
        self._has_set_operator_key = True

    def drop_key(self, digest: bytes) -> None:
        """Remove a revoked API key."""
        self._note("api_keys", digest)
        key = self.keys.pop(digest, None)
        if key is not None:
            self.key_expiries.pop(key.id, None)

    def put_service_key(self, key: ServiceKey) -> None:
        """Add or replace a service key."""
        self._note("service_keys", key.digest)
        self.service_keys[key.digest] = key
        self._note_expiry(key)

    def drop_service_key(self, digest: bytes) -> None:
        """Remove a revoked service key."""
        self._note("service_keys", digest)
        key = self.service_keys.pop(digest, None)
        if key is not None:
            self.key_expiries.pop(key.id, None)

    def _note_expiry(self, key: ApiKey | ServiceKey) -> None:
        if key.expires_at is None:
            self.key_expiries.pop(key.id, None)
        else:
            self.key_expiries[key.id] = key.expires_at
