"""One-time secrets that a page shows again after a reload, for a few minutes.

A cookie contains the encrypted secret. The server decrypts the cookie only for the session and the account for which it
created the cookie.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from uplift_server.dashboard.encrypted_cookies import EncryptedCookies

SHOWN_SECONDS: Final = 300
"""How long, in seconds, a page can show a one-time secret."""
SECRET_BYTES_MAX: Final = 2_000
"""The maximum size of a secret, in bytes. A cookie contains the secret, and browsers accept cookies of up to 4 KiB."""


class ShownSecret(NamedTuple):
    """The decrypted content of the cookie."""

    subject: str
    """The ID of the object to which the secret belongs, or a constant name, such as `recovery-codes`."""
    secret: str
    until: int
    """The time when the page stops showing the secret (Unix ms)."""

    @property
    def since(self) -> int:
        """The time when the page first showed the secret (Unix ms)."""
        return self.until - SHOWN_SECONDS * 1000


@dataclass(frozen=True, slots=True)
class SecretCookies:
    """Encrypts and decrypts the cookies that contain one-time secrets."""

    key: bytes = field(repr=False)

    def write(self, subject: str, secret: str, place: bytes, now_ms: int) -> str:
        """Return the cookie for a secret that was just created or revealed.

        `place` identifies the session and the account.
        """
        assert len(secret.encode()) <= SECRET_BYTES_MAX, "the secret fits into a cookie"
        return self._cookies.encrypt(
            msgspec.json.encode(ShownSecret(subject, secret, now_ms + SHOWN_SECONDS * 1000)), place
        )

    def read(self, cookie: str, place: bytes, now_ms: int) -> ShownSecret | None:
        """Return the secret in a cookie.

        Return None if the cookie has expired, was changed, or belongs to another `place`.
        """
        content = self._cookies.decrypt(cookie, place)
        if content is None:
            return None
        shown = msgspec.json.decode(content, type=ShownSecret)
        return shown if now_ms < shown.until else None

    @property
    def _cookies(self) -> EncryptedCookies:
        return EncryptedCookies(self.key, b"shown secrets")
