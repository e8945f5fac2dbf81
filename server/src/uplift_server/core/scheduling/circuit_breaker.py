"""Circuit breaker for an endpoint.

The breaker opens after many failures in a row, or after a minute in which every attempt timed out. While it is open,
the endpoint gets one probe at a time, with growing waits between probes. Other due deliveries wait without using up
attempts. The first success closes the breaker. A `Retry-After` header opens the breaker for the requested time.
`delivery/health/circuit_breaker.py` updates the breaker after each attempt.
"""

from dataclasses import dataclass
from typing import Final

from uplift_server.core.deliveries.health import Health

PROBE_FIRST_MS: Final = 1000
TIMEOUTS_OPEN_AFTER_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """The rule that determines when a breaker opens, and the longest wait between probes.

    `failures` is the number of consecutive failures after which the breaker opens. If `failures` is 0, the breaker
    never opens. `probe_max_ms` limits the wait between probes, and the wait that a receiver can request.
    """

    failures: int
    probe_max_ms: int


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of one endpoint's breaker. The breaker is open while `probe_at` is set.

    `probe_at` is the time of the next probe (Unix ms).
    """

    failures: int = 0
    timeouts_since: int | None = None
    """When the current series of timeouts began (Unix ms)."""
    probe_at: int | None = None
    probe_wait_ms: int = 0
    retry_after_at: int | None = None
    """When the receiver last sent `Retry-After` (Unix ms)."""

    def after_success(self, began_at: int) -> "Breaker":
        """Return the breaker after a successful attempt. The success closes the breaker.

        If the receiver has sent `Retry-After` since the attempt began at `began_at` (Unix ms), the breaker does not
        change.
        """
        if self.retry_after_at is not None and began_at < self.retry_after_at:
            return self
        return CLOSED

    def after_failure(self, now_ms: int, *, timed_out: bool, rule: BreakerRule, retry_after_ms: int = 0) -> "Breaker":
        """Return the breaker after a failed attempt. An open breaker stays open.

        `retry_after_ms` is the wait that the receiver requests, or 0. A wait of more than 0 opens the breaker, unless
        `rule.failures` is 0.
        """
        failures = self.failures + 1
        since = (now_ms if self.timeouts_since is None else self.timeouts_since) if timed_out else None
        retry_after_ms = min(retry_after_ms, rule.probe_max_ms) if rule.failures else 0
        retry_after_at = now_ms if retry_after_ms else self.retry_after_at
        if self.probe_at is not None and now_ms < self.probe_at:
            # The attempt is not a probe, so it changes the time of the next probe only if it received `Retry-After`.
            return Breaker(
                failures, since, max(self.probe_at, now_ms + retry_after_ms), self.probe_wait_ms, retry_after_at
            )
        opens = rule.failures > 0 and (
            self.probe_at is not None
            or failures >= rule.failures
            or (since is not None and now_ms - since >= TIMEOUTS_OPEN_AFTER_MS)
        )
        wait = min(self.probe_wait_ms * 2 or PROBE_FIRST_MS, rule.probe_max_ms) if opens else 0
        if not opens and not retry_after_ms:
            return Breaker(failures, since)
        return Breaker(failures, since, now_ms + max(wait, retry_after_ms), wait, retry_after_at)


CLOSED: Final = Breaker()
"""A closed breaker without failures."""


def restore_breaker(health: Health, rule: BreakerRule) -> Breaker:
    """Restore an endpoint's breaker from the stored health of the endpoint, for example after a restart.

    The restored breaker keeps the previous wait between probes. Therefore, the server does not retry all failing
    endpoints at once after a restart.
    """
    failures, last_failure_at = health.consecutive_failures, health.last_failure_at
    if rule.failures == 0 or last_failure_at is None:
        return Breaker(failures)
    if health.failing_since is not None and health.probe_at is not None:
        # The stored time of the probe is also correct if `Retry-After` or timeouts opened the breaker.
        wait = min(max(PROBE_FIRST_MS, health.probe_at - last_failure_at), rule.probe_max_ms)
        return Breaker(failures, None, health.probe_at, wait)
    if failures < rule.failures:
        return Breaker(failures)
    # Compute the time of the probe, because earlier releases did not store it in an endpoint's health.
    # Limit the doublings, because more of them would exceed the maximum wait anyway.
    doublings = min(failures - rule.failures, rule.probe_max_ms.bit_length())
    # Concurrent attempts can fail together.
    # Therefore, the wait is at most PROBE_FIRST_MS plus the time between the first and the last failure.
    longest = PROBE_FIRST_MS + max(0, last_failure_at - (health.failing_since or 0))
    wait = min(PROBE_FIRST_MS << doublings, rule.probe_max_ms, longest)
    return Breaker(failures, None, last_failure_at + wait, wait)
