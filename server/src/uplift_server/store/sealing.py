"""Secrets at rest: sealed with AES-256-GCM under the operator's key, and bound to what they belong to.

The key never reaches the database. Sealed form: one version byte, a 12-byte random nonce, the ciphertext with its tag.
"""

import base64
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from uplift_server.config.kinds import SEALING_KEY_BYTES

ERASED: Final[Mapping[str, bytes | None]] = MappingProxyType({"secret": b"", "previous_secret": None, "headers": None})
"""What the sealed columns of an endpoint hold once it is deleted: nothing sealed outlives it."""
_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12


class WrongSecretKey(Exception):
    """A sealed value does not open: it was sealed with another key, for something else, or was changed."""


class Sealer:
    """Seals and opens values with one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) != SEALING_KEY_BYTES:
            raise ValueError(f"the key must be {SEALING_KEY_BYTES} bytes, not {len(key)}")
        self._aead = AESGCM(key)

    def seal(self, value: str, context: bytes) -> bytes:
        """The sealed form of a text; `context` (such as its owner's id) must be given again to open it."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._aead.encrypt(nonce, value.encode(), context)

    def open(self, sealed: bytes, context: bytes) -> str:
        """The text behind a sealed form. Raises WrongSecretKey."""
        head, nonce, rest = sealed[:1], sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if head != _VERSION:
                raise WrongSecretKey(f"unknown sealed form {head!r}")
            return self._aead.decrypt(nonce, rest, context).decode()
        except (InvalidTag, ValueError) as error:
            raise WrongSecretKey(
                "a stored secret does not open with this UPLIFT_SECRET_KEY; start with the key it was sealed with, the"
                " new one if it was replaced"
            ) from error


def derived_key(key: bytes, purpose: str) -> bytes:
    """A key of 32 bytes for something else than sealing, from the sealing key: the same one as long as that stays."""
    return HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(key)


def fingerprint(key: bytes) -> int:
    """A number of 63 bits by which a key is recognised, and which tells nothing of it."""
    return int.from_bytes(derived_key(key, "fingerprint")[:8], "big") >> 1


def parse_key(text: str) -> bytes:
    """The bytes of a base64 key, whose form the configuration has checked."""
    return base64.b64decode(text, validate=True)
