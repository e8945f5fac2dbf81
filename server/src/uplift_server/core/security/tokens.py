"""Tokens in links. The server derives each token from a key and does not store it.

A token consists of an ID or other data, and a keyed hash of this data. Read access to the database does not reveal
tokens. An email that the server resends after a crash contains the same token.
"""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from enum import Enum
from typing import Final

_ID_BYTES: Final = 16
_TAG_BYTES: Final = 24
_TIMESTAMP_BYTES: Final = 8
_TEXT = re.compile(r"[A-Za-z0-9_-]{40,80}")


class Purpose(Enum):
    """The purpose of a token. A token is valid for one purpose only. The value is the link's path before the token."""

    ENTER = "enter"
    INVITATION = "invitations"
    RESET = "passwords"

    def url(self, public_url: str, token: str) -> str:
        """Return the URL of the link with this token. `public_url` has no trailing slash."""
        return f"{public_url}/{self.value}/{token}"


def token(key: bytes, purpose: Purpose, object_id: bytes) -> str:
    """Return the token for an object ID of 16 bytes."""
    return _text(object_id + _tag(key, purpose, object_id))


def verified_id(key: bytes, purpose: Purpose, text: str) -> bytes | None:
    """Return the ID in a token, or None if the token is not valid for this key and purpose."""
    value = _bytes(text, _ID_BYTES + _TAG_BYTES)
    if value is None:
        return None
    object_id = value[:_ID_BYTES]
    return object_id if hmac.compare_digest(value[_ID_BYTES:], _tag(key, purpose, object_id)) else None


def password_mark(password_hash: str) -> str:
    """Return the fingerprint of a password hash. A token with this fingerprint expires when the password changes."""
    return hmac.digest(password_hash.encode(), b"mark", "sha256").hex()


def reset_token(key: bytes, person_id: bytes, *, expires_at: int, mark: str) -> str:
    """Return a token that can reset a password until `expires_at` (Unix ms)."""
    content = person_id + expires_at.to_bytes(_TIMESTAMP_BYTES, "big")
    return _text(content + _tag(key, Purpose.RESET, content + mark.encode()))


def parse_reset_token(text: str) -> tuple[bytes, int] | None:
    """Return the person's ID and the expiry (Unix ms) in a reset token, or None if the text is not a reset token.

    The function does not verify the token.
    """
    value = _bytes(text, _ID_BYTES + _TIMESTAMP_BYTES + _TAG_BYTES)
    if value is None:
        return None
    return value[:_ID_BYTES], int.from_bytes(value[_ID_BYTES : _ID_BYTES + _TIMESTAMP_BYTES], "big")


def is_valid_reset_token(key: bytes, text: str, mark: str) -> bool:
    """Return whether a reset token is authentic and belongs to the password with this fingerprint."""
    claimed = parse_reset_token(text)
    if claimed is None:
        return False
    return hmac.compare_digest(text, reset_token(key, claimed[0], expires_at=claimed[1], mark=mark))


def _tag(key: bytes, purpose: Purpose, content: bytes) -> bytes:
    return hmac.digest(key, purpose.value.encode() + b"\0" + content, "sha256")[:_TAG_BYTES]


def _text(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def _bytes(text: str, length: int) -> bytes | None:
    if not _TEXT.fullmatch(text):
        return None
    try:
        value = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    # The last base64 character may have unused bits, so several strings decode to the same bytes. Accept only one of
    # them.
    return value if len(value) == length and _text(value) == text else None
