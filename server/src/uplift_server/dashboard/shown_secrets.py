"""One-time secrets that a page shows again for a few minutes, so that a reload does not lose them.

The secret is in a cookie that only this server can decrypt, and only for the session and the account that the secret
was shown in.
"""

import base64
import binascii
import hmac
import os
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SHOWN_SECONDS: Final = 300
"""How long the page shows a secret again."""
SECRET_BYTES_MAX: Final = 2_000
"""The maximum size of a secret. A browser accepts cookies of up to 4 KiB."""
_NONCE_BYTES: Final = 12


class ShownSecret(NamedTuple):
    """A secret in the cookie."""

    subject: str
    """The ID of the object that the secret belongs to."""
    secret: str
    until: int
    """When the page stops showing it (Unix ms)."""

    @property
    def since(self) -> int:
        """When the page showed it first (Unix ms)."""
        return self.until - SHOWN_SECONDS * 1000


@dataclass(frozen=True, slots=True)
class SecretCookies:
    """Encrypts and decrypts the cookies of secrets."""

    key: bytes = field(repr=False)

    def write(self, subject: str, secret: str, place: bytes, now_ms: int) -> str:
        """Return the cookie of a secret that was created or revealed now. `place` is its session and account."""
        assert len(secret.encode()) <= SECRET_BYTES_MAX, "the secret fits into a cookie"
        content = msgspec.json.encode(ShownSecret(subject, secret, now_ms + SHOWN_SECONDS * 1000))
        nonce = os.urandom(_NONCE_BYTES)
        return base64.urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, content, place)).decode()

    def read(self, cookie: str, place: bytes, now_ms: int) -> ShownSecret | None:
        """Return the secret in a cookie. None if it has expired, belongs to another place or was changed."""
        try:
            sent = base64.urlsafe_b64decode(cookie.encode("ascii", "replace"))
            content = self._cipher.decrypt(sent[:_NONCE_BYTES], sent[_NONCE_BYTES:], place)
        except (binascii.Error, ValueError, InvalidTag):
            return None
        shown = msgspec.json.decode(content, type=ShownSecret)
        return shown if now_ms < shown.until else None

    @property
    def _cipher(self) -> AESGCM:
        return AESGCM(hmac.digest(self.key, b"shown secrets", "sha256"))
