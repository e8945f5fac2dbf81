"""Cookies that only this server can decrypt, for values that a browser must not store in plain text."""

import base64
import binascii
import hmac
import os
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class EncryptedCookies:
    """Encrypts and decrypts the cookies for one `purpose`. The encryption key is derived from the dashboard's `key`."""

    key: bytes = field(repr=False)
    purpose: bytes

    def encrypt(self, content: bytes, place: bytes = b"") -> str:
        """Return `content` as an encrypted cookie value.

        To decrypt the value, `decrypt` needs the same `place`, such as a session ID.
        """
        nonce = os.urandom(_NONCE_BYTES)
        return base64.urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, content, place)).decode()

    def decrypt(self, cookie: str, place: bytes = b"") -> bytes | None:
        """Return the content of a cookie, or None if the cookie was changed or was encrypted with another `place`."""
        try:
            sent = base64.urlsafe_b64decode(cookie.encode("ascii", "replace"))
            return self._cipher.decrypt(sent[:_NONCE_BYTES], sent[_NONCE_BYTES:], place)
        except (binascii.Error, ValueError, InvalidTag):
            return None

    @property
    def _cipher(self) -> AESGCM:
        return AESGCM(hmac.digest(self.key, self.purpose, "sha256"))
