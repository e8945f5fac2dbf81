"""How often a sign-in may go wrong: for a mail address, and for the address of a network it comes from."""

from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from uplift_server.core.failures import Failures
from uplift_server.service.errors import RateLimited

WITHIN_MS: Final = 15 * 60_000
FAILURES_PER_EMAIL_MAX: Final = 5
FAILURES_PER_ADDRESS_MAX: Final = 30
RESETS_PER_EMAIL_MAX: Final = 3


class SignInLimits:
    """Kept in memory, for 15 minutes. What is begun counts as gone wrong until it went well.

    With `has_unknown_proxy` private addresses do not count: all the world comes from the proxy's, and one who guesses
    would lock everybody out.
    """

    def __init__(self, *, has_unknown_proxy: bool = False) -> None:
        self._has_unknown_proxy = has_unknown_proxy
        self._by_email = Failures(FAILURES_PER_EMAIL_MAX, WITHIN_MS)
        self._by_address = Failures(FAILURES_PER_ADDRESS_MAX, WITHIN_MS)
        self._resets = Failures(RESETS_PER_EMAIL_MAX, WITHIN_MS)

    def begin(self, now_ms: int, *, email: str | None, address: str | None) -> None:
        """Somebody tries to sign in. Raises RateLimited."""
        counted = ((self._by_email, email), (self._by_address, self._whose(address)))
        tried = [(counts, key) for counts, key in counted if key is not None]
        wait_ms = max((counts.wait_ms(key, now_ms) for counts, key in tried), default=0)
        if wait_ms:
            raise _too_many(wait_ms)
        for counts, key in tried:
            counts.note(key, now_ms)

    def succeed(self, *, email: str | None, address: str | None) -> None:
        """It went well: the mail address begins anew, and the other has gone wrong once less."""
        if email is not None:
            self._by_email.forget(email)
        whose = self._whose(address)
        if whose is not None:
            self._by_address.forgive(whose)

    def begin_reset(self, now_ms: int, *, email: str, address: str | None) -> None:
        """Somebody asks for the mail that resets a password. Raises RateLimited."""
        wait_ms = self._resets.wait_ms(email, now_ms)
        if wait_ms:
            raise _too_many(wait_ms)
        self.begin(now_ms, email=None, address=address)
        self._resets.note(email, now_ms)

    def _whose(self, address: str | None) -> str | None:
        """What one customer of a network has: of version 6, 64 bits of it. None for what tells nobody apart."""
        if address is None:
            return None
        try:
            parsed = ip_address(address)
        except ValueError:
            return address
        if self._has_unknown_proxy and parsed.is_private:
            return None
        return str(IPv6Network((int(parsed), 64), strict=False)) if isinstance(parsed, IPv6Address) else address


def _too_many(wait_ms: int) -> RateLimited:
    minutes = -(-wait_ms // 60_000)
    text = f"Too many attempts. Try again in {minutes} minute{'' if minutes == 1 else 's'}."
    return RateLimited(text, -(-wait_ms // 1000))
