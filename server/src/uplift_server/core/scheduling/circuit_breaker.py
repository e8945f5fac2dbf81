"""The breaker of an endpoint: after many failures in a row it is only probed, one attempt at a time, ever more rarely.

Other due deliveries wait meanwhile without spending attempts. The first success closes it. It also opens for as long as
a receiver asks for by `Retry-After`, whatever came before.
"""

from dataclasses import dataclass
from typing import Final

from uplift_server.core.deliveries.health import Health

PROBE_FIRST_MS: Final = 1000
TIMEOUTS_OPEN_AFTER_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a breaker opens (`failures` in a row; 0: never) and how rare its probes become.

    `probe_max_ms` bounds what a receiver may ask for, too.
    """

    failures: int
    probe_max_ms: int


@dataclass(frozen=True, slots=True)
class Breaker:
    """One endpoint's breaker. It is open while `probe_at` (Unix ms) is set: the next attempt may start then."""

    failures: int = 0
    timeouts_since: int | None = None
    """Since when every attempt has timed out."""
    probe_at: int | None = None
    probe_wait_ms: int = 0
    asked_at: int | None = None
    """When the receiver last asked for a wait."""

    def after_success(self, began_at: int) -> "Breaker":
        """Closed, unless the receiver asked for a wait after this attempt had begun (Unix ms)."""
        if self.asked_at is not None and began_at < self.asked_at:
            return self
        return CLOSED

    def after_failure(self, now_ms: int, *, timed_out: bool, rule: BreakerRule, retry_after_ms: int = 0) -> "Breaker":
        """The state after one more failure that is the receiver's: what is open stays open.

        `retry_after_ms`: how long the receiver asks us to stay away; it opens a breaker by itself.
        """
        failures = self.failures + 1
        since = (now_ms if self.timeouts_since is None else self.timeouts_since) if timed_out else None
        retry_after_ms = min(retry_after_ms, rule.probe_max_ms) if rule.failures else 0
        asked_at = now_ms if retry_after_ms else self.asked_at
        if self.probe_at is not None and now_ms < self.probe_at:
            # An attempt that began before the breaker opened tells nothing new, unless the receiver says how long.
            return Breaker(failures, since, max(self.probe_at, now_ms + retry_after_ms), self.probe_wait_ms, asked_at)
        trips = rule.failures > 0 and (
            self.probe_at is not None
            or failures >= rule.failures
            or (since is not None and now_ms - since >= TIMEOUTS_OPEN_AFTER_MS)
        )
        wait = min(self.probe_wait_ms * 2 or PROBE_FIRST_MS, rule.probe_max_ms) if trips else 0
        if not trips and not retry_after_ms:
            return Breaker(failures, since)
        return Breaker(failures, since, now_ms + max(wait, retry_after_ms), wait, asked_at)


CLOSED: Final = Breaker()
"""How every endpoint begins."""


def restore_breaker(health: Health, rule: BreakerRule) -> Breaker:
    """The breaker after a restart, or where another process takes the endpoint over, from how it fares.

    Its probes go on where they were, so that a restart is no reason to try everything that fails at once.
    """
    failures, last_failure_at = health.consecutive_failures, health.last_failure_at
    if rule.failures == 0 or failures < rule.failures or last_failure_at is None:
        return Breaker(failures)
    # No wait needs more doublings than a number has bits; the exponent has no such bound.
    doublings = min(failures - rule.failures, rule.probe_max_ms.bit_length())
    # Failures of attempts that were in flight together are one: so far it can have waited no longer than it has failed.
    longest = PROBE_FIRST_MS + max(0, last_failure_at - (health.failing_since or 0))
    wait = min(PROBE_FIRST_MS << doublings, rule.probe_max_ms, longest)
    return Breaker(failures, None, last_failure_at + wait, wait)
