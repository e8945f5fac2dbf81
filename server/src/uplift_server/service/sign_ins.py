"""Limits on failed sign-ins, wrong codes and password reset emails.

There are limits for each email or person, for each network, and for all callers together.
"""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

import structlog

from uplift_server.core.security.failed_attempts import Failures
from uplift_server.service.errors import RateLimited

WITHIN_MS: Final = 15 * 60_000
FAILURES_PER_EMAIL_MAX: Final = 5
FAILURES_PER_SESSION_MAX: Final = 5
CODES_PER_PERSON_MAX: Final = 5
"""The maximum number of wrong second-factor codes per person within WITHIN_MS.

At any time, 3 of the 1,000,000 possible codes are valid.
"""
FAILURES_PER_NETWORK_MAX: Final = {4: {32: 30, 24: 120}, 6: {64: 30, 56: 60, 48: 120}}
"""The maximum number of failed attempts per network within WITHIN_MS, by IP version and prefix length.

An IPv6 site has a /64, a /56 or a /48, so one attacker has up to 65,536 networks with the prefix length 64.
"""
FAILURES_MAX: Final = 3_000
"""The maximum number of failed attempts from all callers together within WITHIN_MS.

Each failed attempt costs 60 ms of CPU time, so failed sign-ins use at most a fifth of one CPU.
"""
RESETS_PER_EMAIL_MAX: Final = 3
RESETS_MAX: Final = 3_000

_ALL: Final = "all"
_log = structlog.get_logger()
_Counts = list[tuple[Failures, str]]


@dataclass(frozen=True, slots=True)
class SignInAttempt:
    """A sign-in, code or password reset attempt. The attempt counts as failed until it succeeds or is cancelled."""

    own: _Counts
    """The failure counts for the email, the session or the person. Empty if the attempt has none of these."""
    shared: _Counts
    """The failure counts for the networks, and the total count."""

    def succeed(self) -> None:
        """Reset the count for the email, session or person, and remove this attempt from the other counts."""
        for counts, key in self.own:
            counts.forget(key)
        for counts, key in self.shared:
            counts.forgive(key)

    def cancel(self) -> None:
        """Remove this attempt from all counts, because the server was unable to check the password or code."""
        for counts, key in [*self.own, *self.shared]:
            counts.forgive(key)


class SignInLimits:
    """Counts failed sign-ins, wrong codes and password reset requests in the last 15 minutes, in this process's memory.

    If `has_unknown_proxy` is set, there are no counts for private addresses, because all requests may come from the
    proxy's address.
    """

    def __init__(self, *, has_unknown_proxy: bool = False) -> None:
        self._has_unknown_proxy = has_unknown_proxy
        self._by_email = Failures(FAILURES_PER_EMAIL_MAX, WITHIN_MS)
        self._by_session = Failures(FAILURES_PER_SESSION_MAX, WITHIN_MS)
        self._codes_by_person = Failures(CODES_PER_PERSON_MAX, WITHIN_MS)
        self._by_network = {
            version: {prefix: Failures(most, WITHIN_MS) for prefix, most in of_version.items()}
            for version, of_version in FAILURES_PER_NETWORK_MAX.items()
        }
        self._in_total = Failures(FAILURES_MAX, WITHIN_MS)
        self._resets = Failures(RESETS_PER_EMAIL_MAX, WITHIN_MS)
        self._resets_in_total = Failures(RESETS_MAX, WITHIN_MS)
        self._logged_at_ms = -WITHIN_MS

    def begin(self, now_ms: int, *, email: str | None, address: str | None) -> SignInAttempt:
        """Start a sign-in attempt. Raises RateLimited."""
        own = [] if email is None else [(self._by_email, email)]
        return self._begin(now_ms, own, [*self._networks(address), (self._in_total, _ALL)])

    def begin_confirmation(self, now_ms: int, *, session_id: bytes, address: str | None) -> SignInAttempt:
        """Start an attempt to confirm the identity of a signed-in person. Raises RateLimited.

        Each session has its own count, so that failed attempts at the sign-in page do not block a signed-in person.
        """
        return self._begin(now_ms, [(self._by_session, session_id.hex())], self._networks(address))

    def begin_code(self, now_ms: int, *, person_id: bytes, address: str | None) -> SignInAttempt:
        """Start an attempt to enter a second-factor code. Raises RateLimited.

        Only a person who knows the password can start such an attempt, so that other people cannot use up the limit.
        """
        own = [(self._codes_by_person, person_id.hex())]
        return self._begin(now_ms, own, [*self._networks(address), (self._in_total, _ALL)])

    def begin_reset(self, now_ms: int, *, email: str, address: str | None) -> SignInAttempt:
        """Start a request for a password reset email. Raises RateLimited.

        Password resets have their own total limit, so that people can request a reset while sign-ins are blocked.
        """
        return self._begin(now_ms, [(self._resets, email)], [*self._networks(address), (self._resets_in_total, _ALL)])

    def _begin(self, now_ms: int, own: _Counts, shared: _Counts) -> SignInAttempt:
        waits = [(counts.wait_ms(key, now_ms), counts) for counts, key in [*own, *shared]]
        if any(wait_ms and counts in (self._in_total, self._resets_in_total) for wait_ms, counts in waits):
            self._warn(now_ms)
        wait_ms = max((wait_ms for wait_ms, _ in waits), default=0)
        if wait_ms:
            raise _too_many(wait_ms)
        for counts, key in [*own, *shared]:
            counts.note(key, now_ms)
        return SignInAttempt(own, shared)

    def _warn(self, now_ms: int) -> None:
        """Log, at most once every 15 minutes, that all callers together have reached a limit."""
        if abs(now_ms - self._logged_at_ms) >= WITHIN_MS:
            self._logged_at_ms = now_ms
            _log.warning("sign-ins or password resets throttled: server-wide limit reached")

    def _networks(self, address: str | None) -> _Counts:
        """Return the failure counts for the networks that contain an address.

        Return no counts if the address is missing or invalid, or if all callers may share the address.
        """
        if address is None:
            return []
        try:
            parsed = ip_address(address)
        except ValueError:
            return []
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        # Also the shared addresses of RFC 6598 (100.64.0.0/10), which Python does not call private.
        if self._has_unknown_proxy and not parsed.is_global:
            return []
        return [
            (counts, str(ip_network((int(parsed), prefix), strict=False)))
            for prefix, counts in self._by_network[parsed.version].items()
        ]


def _too_many(wait_ms: int) -> RateLimited:
    minutes = -(-wait_ms // 60_000)
    text = f"Too many attempts. Try again in {minutes} minute{'' if minutes == 1 else 's'}."
    return RateLimited(text, -(-wait_ms // 1000))
