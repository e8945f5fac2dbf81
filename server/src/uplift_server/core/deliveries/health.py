"""The health of an endpoint, derived from its attempts, and the actions that the server takes because of it."""

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NamedTuple

from uplift_server.core.deliveries.outcomes import RESPONDED, Outcome

_DELIVERED: Final = Outcome.DELIVERED
FAILURES_MIN: Final = 5
"""Minimum number of consecutive failed attempts before the server warns the account."""


@dataclass(frozen=True, slots=True)
class HealthRule:
    """The time limits, in ms, for a failing endpoint.

    The server warns the account when an endpoint has been failing for `warn_after_ms`, and disables the endpoint when
    it has been failing for `disable_after_ms`.
    """

    warn_after_ms: int
    disable_after_ms: int


class HealthAction(Enum):
    """An action that the server takes because of an endpoint's health."""

    WARN = "warn"
    DISABLE = "disable"
    RECOVER = "recover"
    """Notify the account that an endpoint has recovered after a warning."""


class Health(NamedTuple):
    """The health of an endpoint.

    Times are Unix ms. `failing_since` is the time of the first failure since the last success.
    """

    consecutive_failures: int = 0
    failing_since: int | None = None
    last_success_at: int | None = None
    last_failure_at: int | None = None
    last_outcome: Outcome | None = None
    excused_ms: int = 0
    """The part of the time since `failing_since`, in ms, in which the server itself caused the failures.

    This time postpones the warning to the account and the disabling of the endpoint.
    """
    warned_at: int | None = None
    """The time of the last warning. None if the server has not warned the account since the last recovery email."""
    last_status_code: int | None = None
    last_error: str | None = None
    """The first line of the last attempt's response body, or the attempt's error if there was no response.

    None after a success.
    """
    last_location: str | None = None
    """The target of the redirect that the receiver sent in response to the last attempt, without secrets."""
    probe_at: int | None = None
    """The time of the next probe, while the endpoint is failing and its circuit breaker is open."""

    @property
    def last_response(self) -> str | None:
        """The first line of the last attempt's response body, if the attempt failed."""
        return self.last_error if self.last_outcome in RESPONDED else None

    @property
    def warned(self) -> bool:
        """Whether the server has warned the account about the current failure."""
        return self.warned_at is not None and self.failing_since is not None and self.warned_at >= self.failing_since

    @property
    def status(self) -> Literal["unknown", "healthy", "failing", "warned"]:
        """The status of the endpoint's health: `unknown`, `healthy`, `failing` or `warned`."""
        if self.failing_since is not None:
            return "warned" if self.warned else "failing"
        return "unknown" if self.last_success_at is None else "healthy"

    def after(
        self,
        outcome: Outcome,
        now_ms: int,
        *,
        own_fault: bool,
        status_code: int | None = None,
        error: str | None = None,
        location: str | None = None,
    ) -> "Health":
        """Return the health after an attempt.

        If `own_fault` is true, ignore a failure, because the receiver did not cause it. `error` is the first line of
        the response, or the error if there was no response. `location` is the redirect target without secrets.
        """
        if outcome is _DELIVERED:
            return Health(0, None, now_ms, self.last_failure_at, outcome, 0, self.warned_at, status_code)
        if own_fault:
            return self
        since = now_ms if self.failing_since is None else self.failing_since
        failures = self.consecutive_failures + 1
        return Health(
            failures,
            since,
            self.last_success_at,
            now_ms,
            outcome,
            self.excused_ms,
            self.warned_at,
            status_code,
            error,
            location,
            self.probe_at,
        )

    def with_excused_time_of(self, stored: "Health") -> "Health":
        """Return a copy whose `excused_ms` is the larger of the values in this object and in `stored`.

        `excused_ms` is the time in which the server itself caused the endpoint's failures. If the endpoint is not
        failing, or if `stored` has a different `failing_since`, return this object unchanged.
        """
        if self.failing_since is None or self.failing_since != stored.failing_since:
            return self
        return self._replace(excused_ms=max(self.excused_ms, stored.excused_ms))

    def with_erased_error_of(self, stored: "Health") -> "Health":
        """Return a copy without the last error if an erasure removed the error of the same failure from `stored`."""
        is_erased = stored.last_error is None and stored.last_location is None
        if not is_erased or stored.last_failure_at != self.last_failure_at:
            return self
        return self._replace(last_error=None, last_location=None)

    def with_success_of(self, stored: "Health") -> "Health":
        """Return the stored health if it shows that the endpoint recovered after the last failure in this object.

        The result has the `last_failure_at` and the `warned_at` of this object. If `stored` shows no such recovery, or
        if the endpoint is not failing according to this object, return this object unchanged.
        """
        if self.failing_since is None or stored.failing_since is not None or stored.last_success_at is None:
            return self
        if self.last_failure_at is not None and stored.last_success_at <= self.last_failure_at:
            return self
        return stored._replace(last_failure_at=self.last_failure_at, warned_at=self.warned_at)

    def warn_at(self, rule: HealthRule) -> int | None:
        """Return the time (Unix ms) when the server will warn the account unless an attempt succeeds.

        The warning comes later if the endpoint has fewer than FAILURES_MIN consecutive failures at the returned time.
        Return None if the endpoint is not failing, or if the server has already warned the account.
        """
        if self.failing_since is None or self.warned:
            return None
        return self.failing_since + self.excused_ms + rule.warn_after_ms

    def disable_at(self, rule: HealthRule) -> int | None:
        """Return the time (Unix ms) when the server will disable the endpoint unless an attempt succeeds.

        Return None if the endpoint is not failing. A late warning, for example after server downtime, still gives the
        full time between warning and disabling.
        """
        if self.failing_since is None:
            return None
        at = self.failing_since + self.excused_ms + rule.disable_after_ms
        if self.warned_at is None or not self.warned:
            return at
        return max(at, self.warned_at + rule.disable_after_ms - rule.warn_after_ms)

    def next_action(self, now_ms: int, rule: HealthRule) -> HealthAction | None:
        """Return the action that is due now, if any.

        The method does not record the action, so later calls can return the action again.
        """
        if self.warned_at is not None and not self.warned:
            return HealthAction.RECOVER
        if self.warned:
            at = self.disable_at(rule)
            return HealthAction.DISABLE if at is not None and at <= now_ms else None
        at = self.warn_at(rule)
        return (
            HealthAction.WARN if at is not None and at <= now_ms and self.consecutive_failures >= FAILURES_MIN else None
        )
