"""Ordered delivery: the server sends the deliveries in an order group one at a time, in event order."""

import hashlib
from typing import Final

from uplift_server.core.limits import ORDERING_KEY_CHARACTERS_MAX
from uplift_server.core.named_codes import NamedCode
from uplift_server.core.problems import Problem

WHOLE_ENDPOINT: Final = 0
"""The order group for every delivery to an endpoint with `Ordering.ENDPOINT`."""
_HASH_BITS: Final = 63


class Ordering(NamedCode):
    """The setting that determines which deliveries an endpoint receives in event order.

    The database stores the setting as a number.
    """

    NONE = 0
    KEY = 1
    """The endpoint receives events with the same ordering key in order."""
    ENDPOINT = 2
    """The endpoint receives all events in order."""


_NONE: Final = Ordering.NONE


def order_group(ordering: Ordering, ordering_key: str | None) -> int | None:
    """Return the order group of a delivery, or None if the delivery is not ordered.

    If the endpoint orders deliveries by key, the group is a hash of the ordering key. All processes and releases
    compute the same hash. Two keys with the same hash share a group.
    """
    if ordering is _NONE:
        return None
    if ordering is Ordering.ENDPOINT:
        return WHOLE_ENDPOINT
    if ordering_key is None:
        return None
    digest = hashlib.sha256(ordering_key.encode()).digest()
    return int.from_bytes(digest[:8]) >> (64 - _HASH_BITS) or 1


def check_ordering_key(text: str, field: str) -> Problem | None:
    """Return the problem with an ordering key, if any."""
    if 1 <= len(text) <= ORDERING_KEY_CHARACTERS_MAX and text.isprintable():
        return None
    message = f"The ordering key is not valid. Use 1 to {ORDERING_KEY_CHARACTERS_MAX} printable characters."
    return Problem(field, "ordering_key_invalid", message)
