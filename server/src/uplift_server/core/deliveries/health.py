"""The health of an endpoint, as its attempts tell it, and when that has consequences."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Literal

from uplift_server.core.deliveries.outcomes import Outcome

FAILURES_MIN: Final = 5
"""Nobody is warned of fewer failed attempts than these, however long ago the first was."""


@dataclass(frozen=True, slots=True)
class HealthRule:
    """After how long of failing an endpoint's owner is warned, and it is disabled; both from `failing_since`."""

    warn_after_ms: int
    disable_after_ms: int


class HealthAction(Enum):
    """What is to be done about an endpoint now."""

    WARN = "warn"
    DISABLE = "disable"
    RECOVER = "recover"
    """Its owner, who was warned, is to be told that it answers again."""


@dataclass(frozen=True, slots=True)
class Health:
    """How an endpoint fares. Instants are Unix ms; `failing_since` is the first failure since the last success."""

    consecutive_failures: int = 0
    failing_since: int | None = None
    last_success_at: int | None = None
    last_failure_at: int | None = None
    last_outcome: Outcome | None = None
    excused_ms: int = 0
    """How much of the time since `failing_since` counts for nobody, since the fault was ours."""
    warned_at: int | None = None
    """When its owner was last warned, until the recovery has been told."""

    @property
    def warned(self) -> bool:
        """Whether its owner was warned of the failing that goes on now."""
        return self.warned_at is not None and self.failing_since is not None and self.warned_at >= self.failing_since

    @property
    def status(self) -> Literal["unknown", "healthy", "failing", "warned"]:
        """`unknown`, `healthy`, `failing` or `warned`."""
        if self.failing_since is not None:
            return "warned" if self.warned else "failing"
        return "unknown" if self.last_success_at is None else "healthy"

    def after(self, outcome: Outcome, now_ms: int, *, own_fault: bool) -> "Health":
        """The health after an attempt; a failure that is `ours` tells nothing about the endpoint."""
        if outcome is Outcome.DELIVERED:
            return Health(0, None, now_ms, self.last_failure_at, outcome, 0, self.warned_at)
        if own_fault:
            return self
        since = now_ms if self.failing_since is None else self.failing_since
        failures = self.consecutive_failures + 1
        return Health(failures, since, self.last_success_at, now_ms, outcome, self.excused_ms, self.warned_at)

    def with_excused_time_of(self, stored: "Health") -> "Health":
        """The health with what another process lets count for nobody of the same failing, as that is stored."""
        if self.failing_since is None or self.failing_since != stored.failing_since:
            return self
        return replace(self, excused_ms=max(self.excused_ms, stored.excused_ms))

    def with_success_of(self, stored: "Health") -> "Health":
        """The health with a success that was on its way at another process, as that is stored, if it was the latest."""
        if self.failing_since is None or stored.failing_since is not None or stored.last_success_at is None:
            return self
        if self.last_failure_at is not None and stored.last_success_at <= self.last_failure_at:
            return self
        return replace(stored, last_failure_at=self.last_failure_at, warned_at=self.warned_at)

    def warn_at(self, rule: HealthRule) -> int | None:
        """When its owner is warned unless it succeeds before (Unix ms); None if there is nothing to warn of."""
        if self.failing_since is None or self.warned:
            return None
        return self.failing_since + self.excused_ms + rule.warn_after_ms

    def disable_at(self, rule: HealthRule) -> int | None:
        """When it is disabled unless it succeeds before (Unix ms).

        Whoever is warned late, since the server was not running, has as long as ever to do something about it.
        """
        if self.failing_since is None:
            return None
        at = self.failing_since + self.excused_ms + rule.disable_after_ms
        if self.warned_at is None or not self.warned:
            return at
        return max(at, self.warned_at + rule.disable_after_ms - rule.warn_after_ms)

    def step(self, now_ms: int, rule: HealthRule) -> HealthAction | None:
        """What is to be done now, if anything. It is asked again and again, so a step not taken is not lost."""
        if self.warned_at is not None and not self.warned:
            return HealthAction.RECOVER
        if self.warned:
            at = self.disable_at(rule)
            return HealthAction.DISABLE if at is not None and at <= now_ms else None
        at = self.warn_at(rule)
        return (
            HealthAction.WARN if at is not None and at <= now_ms and self.consecutive_failures >= FAILURES_MIN else None
        )
