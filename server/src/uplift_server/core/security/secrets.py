"""The valid secrets of an endpoint during a rotation, and the secret that signs `x-uplift-signature-256`.

The type of the secrets is a parameter, because the store uses encrypted secrets and the signer uses plain text.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class SecretPair(Generic[T]):
    """An endpoint's current secret, and the old secret until it expires."""

    current: T = field(repr=False)
    created_at: int
    """When the current secret was created (Unix ms)."""
    previous: T | None = field(default=None, repr=False)
    previous_expires_at: int | None = None
    """When the old secret expires (Unix ms), or None if there is no old secret."""
    header_new: bool = False
    """Whether the current secret signs `x-uplift-signature-256`. Otherwise, the old secret signs it.

    The header can carry only one signature.
    """

    def at(self, now_ms: int) -> "SecretPair[T]":
        """Return the pair at `now_ms`. If the old secret has expired, the pair does not contain it."""
        ended = self.previous_expires_at is not None and self.previous_expires_at <= now_ms
        return self.without_previous() if ended else self

    def without_previous(self) -> "SecretPair[T]":
        """Return a pair with only the current secret."""
        return SecretPair(self.current, self.created_at)

    def rotated(self, new: T, now_ms: int, overlap_ms: int, *, header_new: bool = False) -> "SecretPair[T]":
        """Return the pair with a new current secret. The old secret stays valid for `overlap_ms`.

        At most two secrets are valid. If this pair already contains an old secret, that secret expires immediately.
        """
        if overlap_ms <= 0:
            return SecretPair(new, now_ms)
        return SecretPair(new, now_ms, self.current, now_ms + overlap_ms, header_new)

    @property
    def uplift_header(self) -> Literal["old", "new"]:
        """The name, `old` or `new`, of the secret that signs `x-uplift-signature-256`."""
        return "new" if self.previous is None or self.header_new else "old"

    @property
    def uplift(self) -> T:
        """The secret that signs `x-uplift-signature-256`."""
        return self.current if self.previous is None or self.header_new else self.previous

    @property
    def live(self) -> tuple[T, ...]:
        """The secrets that sign `webhook-signature`, in signature order.

        The first secret also signs `x-uplift-signature-256`. Therefore, both headers change to the new secret at the
        same time for a receiver that incorrectly checks only the first signature.
        """
        if self.previous is None:
            return (self.current,)
        return (self.current, self.previous) if self.header_new else (self.previous, self.current)

    def mapped(self, current: Callable[[T], U], previous: Callable[[T], U]) -> "SecretPair[U]":
        """Return the pair with converted secrets, such as decrypted secrets.

        `current` converts the current secret, and `previous` converts the old secret.
        """
        return SecretPair(
            current(self.current),
            self.created_at,
            None if self.previous is None else previous(self.previous),
            self.previous_expires_at,
            self.header_new,
        )
