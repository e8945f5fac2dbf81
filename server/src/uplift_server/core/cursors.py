"""Cursors: opaque, encrypted positions in lists.

A cursor contains the sort key of the last row on a page. The sort key can contain sequence numbers, which would reveal
the total number of events across all accounts. Therefore, the server encrypts cursors. The server rejects a modified
cursor. The same position always results in the same cursor.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

CURSOR_NUMBERS_MAX: Final = 8
CURSOR_KEY_BYTES: Final = 32

_TEXT = re.compile(r"[A-Za-z0-9_-]{8,128}")
_NUMBER_BYTES: Final = 8
_TAG_BYTES: Final = 8


class Cursors:
    """Encodes integers as cursors and decodes cursors, with a key of CURSOR_KEY_BYTES bytes.

    A cursor consists of a tag and the encrypted integers. The tag is a keyed hash of the integers. The key stream that
    encrypts the integers is a keyed hash of the tag. This is the construction of RFC 5297 (SIV), with BLAKE2b instead
    of AES. The 64-byte key stream is long enough for the longest cursor.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != CURSOR_KEY_BYTES:
            raise ValueError(f"the key must be {CURSOR_KEY_BYTES} bytes, not {len(key)}")
        self._key = key

    def encode(self, numbers: Sequence[int]) -> str:
        """Encode signed 64-bit integers as a cursor.

        Raises ValueError if there are no integers or more than CURSOR_NUMBERS_MAX, and OverflowError if an integer does
        not fit in 64 bits.
        """
        if not 1 <= len(numbers) <= CURSOR_NUMBERS_MAX:
            raise ValueError(f"a cursor holds 1 to {CURSOR_NUMBERS_MAX} numbers, not {len(numbers)}")
        content = b"".join(number.to_bytes(_NUMBER_BYTES, "big", signed=True) for number in numbers)
        tag = self._tag(content)
        return urlsafe_b64encode(tag + self._crypt(content, tag)).rstrip(b"=").decode("ascii")

    def decode(self, text: str, count: int) -> tuple[int, ...] | None:
        """Return the `count` integers in a cursor, or None if the string is not a valid cursor for `count` integers."""
        if not _TEXT.fullmatch(text):
            return None
        try:
            value = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            return None
        tag, encrypted = value[:_TAG_BYTES], value[_TAG_BYTES:]
        if not 1 <= count <= CURSOR_NUMBERS_MAX or len(encrypted) != count * _NUMBER_BYTES:
            return None
        content = self._crypt(encrypted, tag)
        if not compare_digest(tag, self._tag(content)):
            return None
        numbers = tuple(
            int.from_bytes(content[start : start + _NUMBER_BYTES], "big", signed=True)
            for start in range(0, len(content), _NUMBER_BYTES)
        )
        # The last base64 character may have unused bits, so several strings decode to the same bytes. Accept only one
        # of them.
        return numbers if self.encode(numbers) == text else None

    def _tag(self, content: bytes) -> bytes:
        return blake2b(content, key=self._key, person=b"uplift cursor 1", digest_size=_TAG_BYTES).digest()

    def _crypt(self, content: bytes, tag: bytes) -> bytes:
        """Encrypt or decrypt the bytes of a cursor's integers with the key stream derived from the cursor's tag."""
        stream = blake2b(tag, key=self._key, person=b"uplift cover 1", digest_size=64).digest()
        return bytes(a ^ b for a, b in zip(content, stream, strict=False))
