"""The secrets of an endpoint over time: which are live, which one `x-uplift-signature-256` follows, what changes them.

Whoever holds the pair decides in which form: the store sealed, the signer as texts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class SecretPair(Generic[T]):
    """An endpoint's secret, and the one it replaces for as long as both are live. Instants are Unix ms."""

    current: T = field(repr=False)
    created_at: int
    """When the current one came to be."""
    previous: T | None = field(default=None, repr=False)
    previous_expires_at: int | None = None
    """Until when the previous one is live, too; None exactly where there is none."""
    header_new: bool = False
    """Whether `x-uplift-signature-256`, which can carry only one signature, follows the current one already."""

    def at(self, now_ms: int) -> "SecretPair[T]":
        """The pair as it stands at an instant: without a previous secret whose time is over."""
        ended = self.previous_expires_at is not None and self.previous_expires_at <= now_ms
        return self.without_previous() if ended else self

    def without_previous(self) -> "SecretPair[T]":
        """The current secret, the previous one ended."""
        return SecretPair(self.current, self.created_at)

    def rotated(self, new: T, now_ms: int, overlap_ms: int, *, header_new: bool = False) -> "SecretPair[T]":
        """The pair once a new secret is the current one, and the one before it stays live for so long.

        What was the previous secret until now ends at once: two are live at most.
        """
        if overlap_ms <= 0:
            return SecretPair(new, now_ms)
        return SecretPair(new, now_ms, self.current, now_ms + overlap_ms, header_new)

    @property
    def uplift_header(self) -> Literal["old", "new"]:
        """Which secret `x-uplift-signature-256` follows: the older one of two, unless it was told otherwise."""
        return "new" if self.previous is None or self.header_new else "old"

    @property
    def uplift(self) -> T:
        """The secret that `x-uplift-signature-256` follows."""
        return self.current if self.previous is None or self.header_new else self.previous

    @property
    def live(self) -> tuple[T, ...]:
        """The secrets that sign `webhook-signature`, in the order of their signatures.

        First the one `x-uplift-signature-256` follows: a receiver that only looks at the first signature, which it
        should not, then sees both schemes change to the new secret at the same instant.
        """
        if self.previous is None:
            return (self.current,)
        return (self.current, self.previous) if self.header_new else (self.previous, self.current)

    def mapped(self, current: Callable[[T], U], previous: Callable[[T], U]) -> "SecretPair[U]":
        """The same pair with its secrets in another form, such as decrypted."""
        return SecretPair(
            current(self.current),
            self.created_at,
            None if self.previous is None else previous(self.previous),
            self.previous_expires_at,
            self.header_new,
        )
