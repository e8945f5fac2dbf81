"""The secret parts of links: derived from a key and what they stand for, so that none is ever stored.

A token is an id (or what else it stands for) with a keyed hash of it. Whoever has the database has no token, and a
mail that is sent again after a crash has the same one.
"""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from enum import Enum
from typing import Final

_ID_BYTES: Final = 16
_TAG_BYTES: Final = 24
_INSTANT_BYTES: Final = 8
_TEXT = re.compile(r"[A-Za-z0-9_-]{40,80}")


class Purpose(Enum):
    """What a token is for: one is never taken for another. The value is where its link lies, before the token."""

    ENTER = "enter"
    INVITATION = "invitations"
    RESET = "passwords"

    def url(self, public_url: str, token: str) -> str:
        """The link with this token; `public_url` is without a final slash."""
        return f"{public_url}/{self.value}/{token}"


def token(key: bytes, purpose: Purpose, object_id: bytes) -> str:
    """The token of what has this id of 16 bytes."""
    return _text(object_id + _tag(key, purpose, object_id))


def verified_id(key: bytes, purpose: Purpose, text: str) -> bytes | None:
    """The id behind a token made with the same key for the same purpose; None for any other text."""
    value = _bytes(text, _ID_BYTES + _TAG_BYTES)
    if value is None:
        return None
    object_id = value[:_ID_BYTES]
    return object_id if hmac.compare_digest(value[_ID_BYTES:], _tag(key, purpose, object_id)) else None


def password_mark(password_hash: str) -> str:
    """What tells that a password is still the same: a token bound to it ends with it."""
    return hmac.digest(password_hash.encode(), b"mark", "sha256").hex()


def reset_token(key: bytes, person_id: bytes, *, expires_at: int, mark: str) -> str:
    """The token with which a person who has forgotten a password may set another until an instant (Unix ms)."""
    head = person_id + expires_at.to_bytes(_INSTANT_BYTES, "big")
    return _text(head + _tag(key, Purpose.RESET, head + mark.encode()))


def parse_reset_token(text: str) -> tuple[bytes, int] | None:
    """Whom a reset's token is for and when it ends, as it says itself; None for what is none."""
    value = _bytes(text, _ID_BYTES + _INSTANT_BYTES + _TAG_BYTES)
    if value is None:
        return None
    return value[:_ID_BYTES], int.from_bytes(value[_ID_BYTES : _ID_BYTES + _INSTANT_BYTES], "big")


def is_valid_reset_token(key: bytes, text: str, mark: str) -> bool:
    """Whether a reset's token is true, and of the password that has this mark."""
    stated = parse_reset_token(text)
    if stated is None:
        return False
    return hmac.compare_digest(text, reset_token(key, stated[0], expires_at=stated[1], mark=mark))


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
    # The last character of base64 may carry bits that mean nothing: one token has one text.
    return value if len(value) == length and _text(value) == text else None
