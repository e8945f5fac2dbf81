"""Places in lists, as opaque text for the outside world.

A cursor holds the keyset of the last row seen, a few integers: some count the events of everybody, which is nobody's
business, so they are encrypted. Forging one would gain nothing, since lists are filtered by rights; but a mangled one
is refused instead of giving a wrong page. The same place has the same text, also after a restart.
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
    """Makes cursors, and reads those it made with the same key of CURSOR_KEY_BYTES.

    The tag is a keyed hash of the numbers, and the numbers are hidden under a keyed hash of the tag (the construction
    of RFC 5297, with BLAKE2b, whose 64 bytes cover the longest cursor).
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != CURSOR_KEY_BYTES:
            raise ValueError(f"the key must be {CURSOR_KEY_BYTES} bytes, not {len(key)}")
        self._key = key

    def encode(self, numbers: Sequence[int]) -> str:
        """The text of 1 to CURSOR_NUMBERS_MAX integers of 64 bits, signed. OverflowError or ValueError for others."""
        if not 1 <= len(numbers) <= CURSOR_NUMBERS_MAX:
            raise ValueError(f"a cursor holds 1 to {CURSOR_NUMBERS_MAX} numbers, not {len(numbers)}")
        content = b"".join(number.to_bytes(_NUMBER_BYTES, "big", signed=True) for number in numbers)
        tag = self._tag(content)
        return urlsafe_b64encode(tag + self._covered(content, tag)).rstrip(b"=").decode("ascii")

    def decode(self, text: str, count: int) -> tuple[int, ...] | None:
        """The `count` integers behind a cursor, or None if the text is not one that `encode` made of as many."""
        if not _TEXT.fullmatch(text):
            return None
        try:
            value = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            return None
        tag, covered = value[:_TAG_BYTES], value[_TAG_BYTES:]
        if not 1 <= count <= CURSOR_NUMBERS_MAX or len(covered) != count * _NUMBER_BYTES:
            return None
        content = self._covered(covered, tag)
        if not compare_digest(tag, self._tag(content)):
            return None
        numbers = tuple(
            int.from_bytes(content[start : start + _NUMBER_BYTES], "big", signed=True)
            for start in range(0, len(content), _NUMBER_BYTES)
        )
        # The last character of base64 may carry bits that mean nothing: one place has one text.
        return numbers if self.encode(numbers) == text else None

    def _tag(self, content: bytes) -> bytes:
        return blake2b(content, key=self._key, person=b"uplift cursor 1", digest_size=_TAG_BYTES).digest()

    def _covered(self, content: bytes, tag: bytes) -> bytes:
        """The content under the cover that belongs to a tag; covering it again uncovers it."""
        cover = blake2b(tag, key=self._key, person=b"uplift cover 1", digest_size=64).digest()
        return bytes(a ^ b for a, b in zip(content, cover, strict=False))
