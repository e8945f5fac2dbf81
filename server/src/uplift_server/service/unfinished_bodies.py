"""Limits on the memory for request bodies that are not complete yet."""

from collections import Counter
from typing import Final

from uplift_server.core.limits import UNFINISHED_BODIES_BYTES_MAX, UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX
from uplift_server.service.errors import Busy, RateLimited
from uplift_server.service.principals import Principal

ANONYMOUS: Final = 0
"""The sender for all dashboard requests without a session. No account has this number."""
SERVICE_KEYS: Final = -1
"""The sender for all requests with service keys. No account has this number."""
_TRY_AGAIN: Final = "Send fewer requests in parallel, or try again after `Retry-After` seconds."


class UnfinishedBodies:
    """The bytes that each sender has reserved for unfinished bodies.

    A sender is the sequence number of an account, None (operators), ANONYMOUS or SERVICE_KEYS. There are four groups of
    senders: operators, service keys, accounts and anonymous senders. Each group has its own limit of
    UNFINISHED_BODIES_BYTES_MAX, so that accounts cannot use up the capacity for programs that send events for all
    accounts.
    """

    def __init__(self) -> None:
        self._bytes: Counter[int | None] = Counter()
        self._of_accounts = 0

    def reservation_of(self, principal: Principal) -> "Reservation":
        """Return an empty reservation for a body from this principal."""
        return Reservation(self, SERVICE_KEYS if principal.is_service_key else principal.account_seq)

    def reservation(self, sender: int | None) -> "Reservation":
        """Return an empty reservation for a body from this sender."""
        return Reservation(self, sender)

    def reserve(self, sender: int | None, size: int) -> None:
        """Reserve bytes for a sender.

        Raises RateLimited if an account would exceed its limit, or Busy if the sender's group would exceed its limit.
        """
        is_account = _is_account(sender)
        if is_account and self._bytes[sender] + size > UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX:
            kib = UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX // 1024
            raise RateLimited(f"The unfinished request bodies of this account exceed {kib} KiB. {_TRY_AGAIN}")
        if (self._of_accounts if is_account else self._bytes[sender]) + size > UNFINISHED_BODIES_BYTES_MAX:
            raise Busy(
                f"The unfinished request bodies of all callers together exceed the limit of the server. {_TRY_AGAIN}"
            )
        self._add(sender, size)

    def release(self, sender: int | None, size: int) -> None:
        """Release bytes that were reserved for this sender."""
        self._add(sender, -size)

    def _add(self, sender: int | None, size: int) -> None:
        self._bytes[sender] += size
        if _is_account(sender):
            self._of_accounts += size
            if not self._bytes[sender]:
                del self._bytes[sender]


def _is_account(sender: int | None) -> bool:
    return sender is not None and sender > 0


class Reservation:
    """Bytes reserved for one unfinished body. The end of a `with` block releases the bytes."""

    def __init__(self, bodies: UnfinishedBodies, sender: int | None) -> None:
        self._bodies = bodies
        self._sender = sender
        self._size = 0

    def grow_to(self, size: int) -> None:
        """Increase the reservation to `size` bytes. Do nothing if the reservation already has at least `size` bytes.

        Raises RateLimited or Busy.
        """
        if size > self._size:
            self._bodies.reserve(self._sender, size - self._size)
            self._size = size

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.release(self._sender, self._size)
