"""One-time secrets that a page shows again for a few minutes, so that a reload does not lose them.

The secret is in a cookie that only this server can decrypt, and only for the session and the account that the secret
was shown in.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from uplift_server.dashboard.encrypted_cookies import EncryptedCookies

SHOWN_SECONDS: Final = 300
"""How long the page shows a secret again."""
SECRET_BYTES_MAX: Final = 2_000
"""The maximum size of a secret. A browser accepts cookies of up to 4 KiB."""


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
        return self._cookies.encrypt(
            msgspec.json.encode(ShownSecret(subject, secret, now_ms + SHOWN_SECONDS * 1000)), place
        )

    def read(self, cookie: str, place: bytes, now_ms: int) -> ShownSecret | None:
        """Return the secret in a cookie. None if it has expired, belongs to another place or was changed."""
        content = self._cookies.decrypt(cookie, place)
        if content is None:
            return None
        shown = msgspec.json.decode(content, type=ShownSecret)
        return shown if now_ms < shown.until else None

    @property
    def _cookies(self) -> EncryptedCookies:
        return EncryptedCookies(self.key, b"shown secrets")
