"""Limits each account's share of the event stream.

A full stream rejects the events of all accounts, so no account may fill it alone. Each process counts the bytes of the
events that it publishes. A load balancer distributes the requests of an account over all processes, so the shares are
similar in all processes.
"""

from typing import Final

NEARLY_FULL: Final = 0.75
"""If at least this fraction of the stream is in use, the server limits each account's share."""
NEARLY_EMPTY: Final = 0.01
"""If less than this fraction of the stream is in use, the server resets the byte counts of all accounts."""
SHARE_MAX: Final = 0.5
"""While the stream is nearly full, an account may publish only if its share of the counted bytes is at most this
fraction."""
COUNTED_MIN: Final = 0.01
"""The fraction of the stream's maximum size that an account may always use.

After a restart, the counts of a process are too low to determine exact shares. This fraction ensures that an account
can publish until the counts are high enough.
"""


class StreamShares:
    """Counts the bytes that each account publishes to the stream.

    The counts start again at 0 when the stream is nearly empty.
    """

    def __init__(self) -> None:
        self._bytes: dict[int, int] = {}
        self._total = 0
        self._limited_from: float | None = None
        """Number of bytes that each account may always use. None unless the stream is nearly full."""

    def add(self, account_seq: int, size: int) -> None:
        """Add the size of a published event, in bytes, to the count of its account."""
        self._bytes[account_seq] = self._bytes.get(account_seq, 0) + size
        self._total += size

    def note_size(self, used: int, maximum: int) -> None:
        """Set the used size and the maximum size of the stream, in bytes."""
        self._limited_from = COUNTED_MIN * maximum if used >= NEARLY_FULL * maximum else None
        if used < NEARLY_EMPTY * maximum:
            self._bytes.clear()
            self._total = 0

    def exceeds(self, account_seq: int) -> bool:
        """Return whether the account has used its share and must wait until the stream has more space."""
        if self._limited_from is None:
            return False
        return self._bytes.get(account_seq, 0) > max(self._limited_from, SHARE_MAX * self._total)
