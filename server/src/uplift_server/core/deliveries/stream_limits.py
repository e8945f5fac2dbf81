"""Limits on the number of listen streams, and on the number of live pages, that a process serves at a time."""

from enum import Enum, auto

from uplift_server.core.limits import (
    STREAMS_CROWDED_FROM,
    STREAMS_MAX,
    STREAMS_PER_ACCOUNT_CROWDED_MAX,
    STREAMS_PER_ACCOUNT_MAX,
)


class Exceeded(Enum):
    """A limit that one more stream would exceed: for all streams of the process, or for the streams of one account."""

    ALL = auto()
    ACCOUNT = auto()


def exceeded(of_all: int, of_account: int) -> Exceeded | None:
    """Return the limit that one more stream of an account would exceed, or None if there is capacity.

    `of_all` and `of_account` are the numbers of open streams of the process and of the account. The last quarter of the
    capacity is reserved for accounts with few streams, so that a few accounts cannot use all streams.
    """
    if of_all >= STREAMS_MAX:
        return Exceeded.ALL
    is_crowded = of_all >= STREAMS_CROWDED_FROM
    share = STREAMS_PER_ACCOUNT_CROWDED_MAX if is_crowded else STREAMS_PER_ACCOUNT_MAX
    return Exceeded.ACCOUNT if of_account >= share else None
