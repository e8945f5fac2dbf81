"""Places in lists, as opaque text for the outside world.

A cursor holds the keyset of the last row seen, a few integers. Nobody gains anything by forging one, since lists are
filtered by rights; the checksum is there so that a mangled one is refused instead of giving a wrong page.
"""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

CURSOR_NUMBERS_MAX: Final = 8

_TEXT = re.compile(r"[A-Za-z0-9_-]{8,128}")
_NUMBER_BYTES: Final = 8
_CHECKSUM_BYTES: Final = 4
_SALT: Final = binascii.crc32(b"uplift cursor 1")


def encode(numbers: Sequence[int]) -> str:
    """The text of 1 to CURSOR_NUMBERS_MAX integers of 64 bits, signed. OverflowError or ValueError for others."""
    if not 1 <= len(numbers) <= CURSOR_NUMBERS_MAX:
        raise ValueError(f"a cursor holds 1 to {CURSOR_NUMBERS_MAX} numbers, not {len(numbers)}")
    content = b"".join(number.to_bytes(_NUMBER_BYTES, "big", signed=True) for number in numbers)
    return urlsafe_b64encode(_checksum(content) + content).rstrip(b"=").decode("ascii")


def decode(text: str, count: int) -> tuple[int, ...] | None:
    """The `count` integers behind a cursor, or None if the text is not one that `encode` made of as many."""
    if not _TEXT.fullmatch(text):
        return None
    try:
        value = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    checksum, content = value[:_CHECKSUM_BYTES], value[_CHECKSUM_BYTES:]
    if len(content) != count * _NUMBER_BYTES or checksum != _checksum(content):
        return None
    numbers = tuple(
        int.from_bytes(content[start : start + _NUMBER_BYTES], "big", signed=True)
        for start in range(0, len(content), _NUMBER_BYTES)
    )
    # The last character of base64 may carry bits that mean nothing: one place has one text.
    return numbers if encode(numbers) == text else None


def _checksum(content: bytes) -> bytes:
    return binascii.crc32(content, _SALT).to_bytes(_CHECKSUM_BYTES, "big")
