"""Encryption of secrets at rest with AES-256-GCM. Each value is bound to its column and its owner.

The key never reaches the database. An encrypted value consists of one version byte, a 12-byte random nonce, and the
ciphertext with its tag. In version 1, which releases up to 0.1.1 wrote, the associated data is the endpoint's ID. In
version 2, it is the column and the ID of the owner (an endpoint or a person). Therefore, a value that was copied to
another column or owner cannot be decrypted.
"""

import base64
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from uplift_server.config.parsers import ENCRYPTION_KEY_BYTES

Column = Literal["secret", "previous_secret", "headers", "auth", "totp_secret"]
COLUMNS: Final[tuple[Column, ...]] = ("secret", "previous_secret", "headers", "auth")
"""The columns of `endpoints` that contain encrypted values."""
TOTP_SECRET: Final[Column] = "totp_secret"  # noqa: S105 - the name of a column
"""The column of `second_factors` that contains encrypted values.

Only `endpoints` and `second_factors` have encrypted values.
"""
ERASED: Final[Mapping[str, bytes | None]] = MappingProxyType(
    {"secret": b"", "previous_secret": None, "headers": None, "auth": None}
)
"""The values that replace the encrypted values of a deleted endpoint."""
UNBOUND: Final = b"\x01"
"""The version byte of values that are bound only to their endpoint, not to their column."""
_BOUND: Final = b"\x02"
_NONCE_BYTES: Final = 12
_PLACES: Final = {column: f"endpoints.{column}\0".encode() for column in COLUMNS} | {
    TOTP_SECRET: f"second_factors.{TOTP_SECRET}\0".encode()
}
"""The beginning of the associated data for each column. A NUL byte separates it from the owner's ID, which follows."""


class WrongSecretKey(Exception):
    """A value cannot be decrypted, because the key, the column or the owner is different, or the value was changed."""


class Cipher:
    """Encrypts and decrypts values with one key of 32 bytes."""

    def __init__(self, key: bytes, *, accepts_unbound: bool = False) -> None:
        if len(key) != ENCRYPTION_KEY_BYTES:
            raise ValueError(f"the key must be {ENCRYPTION_KEY_BYTES} bytes, not {len(key)}")
        self._aead = AESGCM(key)
        self._accepts_unbound = accepts_unbound

    @property
    def accepts_unbound(self) -> bool:
        """Whether the cipher decrypts values that are not bound to their column (see `store.encryption_upgrade`)."""
        return self._accepts_unbound

    def reject_unbound(self) -> None:
        """From now on, decrypt only values that are bound to their column."""
        self._accepts_unbound = False

    def encrypt(self, value: str, owner_id: bytes, column: Column, *, bound: bool = True) -> bytes:
        """Encrypt a value for a column of an endpoint or a person.

        If `bound` is false, do not bind the value to the column, so that releases up to 0.1.1 can decrypt it.
        """
        nonce = os.urandom(_NONCE_BYTES)
        version, context = (_BOUND, _context(owner_id, column)) if bound else (UNBOUND, owner_id)
        return version + nonce + self._aead.encrypt(nonce, value.encode(), context)

    def decrypt(self, encrypted: bytes, owner_id: bytes, column: Column) -> str:
        """Decrypt a column's value for an endpoint or a person. Raises WrongSecretKey."""
        version, nonce, rest = encrypted[:1], encrypted[1 : 1 + _NONCE_BYTES], encrypted[1 + _NONCE_BYTES :]
        try:
            if version == _BOUND:
                return self._aead.decrypt(nonce, rest, _context(owner_id, column)).decode()
            if version == UNBOUND and self._accepts_unbound:
                return self._aead.decrypt(nonce, rest, owner_id).decode()
        except (InvalidTag, ValueError):
            pass
        raise WrongSecretKey(
            f"the server cannot decrypt a stored value ({column}), because it was changed or encrypted with a key other"
            " than UPLIFT_SECRET_KEY; set UPLIFT_SECRET_KEY to the key of this database (after a key rotation: the new"
            " key)"
        )


def is_unbound(encrypted: bytes) -> bool:
    """Return whether a value is bound only to its endpoint, not to its column."""
    return encrypted[:1] == UNBOUND


def derived_key(key: bytes, purpose: str) -> bytes:
    """Derive a 32-byte key for the given purpose from the encryption key."""
    return HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(key)


def fingerprint(key: bytes) -> int:
    """Return a 63-bit number that identifies a key without revealing it."""
    return int.from_bytes(derived_key(key, "fingerprint")[:8], "big") >> 1


def parse_key(text: str) -> bytes:
    """Decode a base64 key that the configuration has validated."""
    return base64.b64decode(text, validate=True)


def _context(owner_id: bytes, column: Column) -> bytes:
    return _PLACES[column] + owner_id
