"""IDs: UUID version 7 for events, and a prefix followed by sortable hexadecimal digits for all other objects.

The caller passes the timestamp and the source of random bytes.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

ACCOUNT: Final = "acc"
ENDPOINT: Final = "ep"
DELIVERY: Final = "dlv"
ATTEMPT: Final = "att"
KEY: Final = "key"
REPLAY: Final = "rpl"
LISTEN_SESSION: Final = "lsn"
MEMBER: Final = "mem"
INVITATION: Final = "inv"
LINK: Final = "lnk"
ERASURE: Final = "ers"
REJECTED_EVENT: Final = "rej"

RANDOM_BYTES: Final = 10
"""Number of random bytes that an ID needs."""

UUID_BEGINNING_CHARACTERS_MIN: Final = 6

_STOCK_BYTES: Final = 1000 * RANDOM_BYTES

_UUID_DIGITS: Final = 32
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_HEX = re.compile(r"[0-9a-f]+")
_ENDPOINT_TAIL_BYTES: Final = 6
_TEXTS_KEPT: Final = 2048
"""Number of entries in each cache of ID strings. Caches save time, because the server writes an event ID to the
envelope, the response, each request and each log line."""
_MS_BITS_MASK: Final = (1 << 48) - 1
_LOW_BYTES: Final = 8
_VARIANT: Final = 0x8000_0000_0000_0000
_COUNTER_BITS: Final = 12
_COUNTER_START_MASK: Final = 0x7FF
"""Mask that limits the random start of the counter to the lower half of its range, so that at least 2,048 IDs fit in a
millisecond."""


def uuid7(now_ms: int, random_bytes: bytes) -> bytes:
    """Return a UUID version 7 (RFC 9562, section 5.7) as 16 bytes, from the Unix time in ms and 10 random bytes."""
    random = int.from_bytes(random_bytes, "big")
    return _uuid7((now_ms & _MS_BITS_MASK) << _COUNTER_BITS | random >> _LOW_BYTES * 8 & 0xFFF, random)


def _uuid7(high: int, random: int) -> bytes:
    """Return a UUID from 60 high bits, which surround the version field, and 62 random low bits."""
    return (
        (high >> _COUNTER_BITS) << 80 | (0x7000 | high & 0xFFF) << 64 | _VARIANT | random & 0x3FFF_FFFF_FFFF_FFFF
    ).to_bytes(16, "big")


class IdSequence:
    """Generates version 7 UUIDs that strictly increase, even within a millisecond and after the clock is set back.

    The 12 bits after the timestamp are a counter (RFC 9562, section 6.2, method 1). The counter starts at a random
    number in each millisecond. If the counter overflows, the timestamp runs ahead of the clock. The other 62 bits are
    random.
    """

    __slots__ = ("_draw", "_last", "_stock", "_stock_at")

    def __init__(self, draw: Callable[[int], bytes]) -> None:
        """Create a sequence. `draw` must return the given number of random bytes, like `os.urandom`."""
        self._draw = draw
        # Draw random bytes for many IDs, because other threads can take the interpreter lock during each system call.
        self._stock = b""
        self._stock_at = 0
        self._last = -1
        """The timestamp and the counter of the last ID, as one number."""

    def next(self, now_ms: int) -> bytes:
        """Return the next ID as 16 bytes. `now_ms` is Unix ms."""
        at = self._stock_at
        if at >= len(self._stock):
            self._stock, at = self._draw(_STOCK_BYTES), 0
        self._stock_at = at + RANDOM_BYTES
        random = int.from_bytes(self._stock[at : at + RANDOM_BYTES], "big")
        high = (now_ms & _MS_BITS_MASK) << _COUNTER_BITS | random >> _LOW_BYTES * 8 & _COUNTER_START_MASK
        if high <= self._last:
            high = self._last + 1
        self._last = high
        return _uuid7(high, random)


def is_uuid7(value: bytes) -> bool:
    """Return whether the version field of a 16-byte UUID is 7."""
    return value[6] >> 4 == 7


@lru_cache(_TEXTS_KEPT)
def uuid_text(value: bytes) -> str:
    """Return the canonical lowercase text of a 16-byte UUID."""
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def parse_uuid(text: str) -> bytes | None:
    """Return the 16 bytes of a UUID in canonical form (upper or lower case), or None if the string is not a UUID."""
    if not _UUID.fullmatch(text):
        return None
    return bytes.fromhex(text.replace("-", ""))


def uuid_range(beginning: str) -> tuple[bytes, bytes] | None:
    """Return the lowest and the highest UUID that start with `beginning`, or None if `beginning` is not valid.

    The function ignores hyphens. A valid beginning has at least UUID_BEGINNING_CHARACTERS_MIN hexadecimal digits,
    because a shorter beginning matches all UUIDs from a period of 3 days or more.
    """
    digits = beginning.replace("-", "").lower()
    if not UUID_BEGINNING_CHARACTERS_MIN <= len(digits) <= _UUID_DIGITS or not _HEX.fullmatch(digits):
        return None
    return bytes.fromhex(digits.ljust(_UUID_DIGITS, "0")), bytes.fromhex(digits.ljust(_UUID_DIGITS, "f"))


def prefixed(prefix: str, value: bytes) -> str:
    """Return an ID that consists of the prefix, an underscore, and the bytes in hexadecimal.

    IDs with the same prefix sort in byte order.
    """
    return f"{prefix}_{value.hex()}"


def parse_prefixed(prefix: str, text: str, length: int = 16) -> bytes | None:
    """Return the bytes of an ID, or None if the string is not an ID with this prefix and `length` bytes."""
    # Only strings of the right length reach the cache, to limit its memory use.
    return _parsed(prefix, text) if len(text) == len(prefix) + 1 + 2 * length else None


@lru_cache(_TEXTS_KEPT)
def _parsed(prefix: str, text: str) -> bytes | None:
    head, _, tail = text.partition("_")
    return bytes.fromhex(tail) if head == prefix and _HEX.fullmatch(tail) else None


def delivery_id(event_id: bytes, endpoint_id: bytes) -> str:
    """Return the delivery ID for an event and an endpoint.

    The delivery ID consists of the 16 bytes of the event ID, which sort by time, and the last 6 (random) bytes of the
    endpoint's ID. The database therefore needs no column and no index for delivery IDs.
    """
    return prefixed(DELIVERY, event_id + endpoint_tail(endpoint_id))


def endpoint_tail(endpoint_id: bytes) -> bytes:
    """Return the last bytes of an endpoint's ID, which are part of its delivery IDs."""
    return endpoint_id[-_ENDPOINT_TAIL_BYTES:]


def parse_delivery_id(text: str) -> tuple[bytes, bytes] | None:
    """Return the event ID and the last bytes of the endpoint ID, or None if the string is not a delivery ID."""
    value = parse_prefixed(DELIVERY, text, 16 + _ENDPOINT_TAIL_BYTES)
    return None if value is None else (value[:16], value[16:])


def attempt_id(event_id: bytes, endpoint_id: bytes, number: int) -> str:
    """Return the ID of an attempt. The ID consists of the delivery ID's bytes and the attempt number."""
    return prefixed(ATTEMPT, event_id + endpoint_id[-_ENDPOINT_TAIL_BYTES:] + number.to_bytes(4, "big"))


def parse_attempt_id(text: str) -> tuple[bytes, bytes, int] | None:
    """Return the event ID, the last bytes of the endpoint ID, and the attempt number from an attempt ID.

    Return None if the string is not an attempt ID.
    """
    value = parse_prefixed(ATTEMPT, text, 16 + _ENDPOINT_TAIL_BYTES + 4)
    return None if value is None else (value[:16], value[16:-4], int.from_bytes(value[-4:], "big"))
