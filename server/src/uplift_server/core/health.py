"""The health of an endpoint, as its attempts tell it."""

from dataclasses import dataclass
from typing import Literal

from uplift_server.core.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Health:
    """How an endpoint fares. Instants are Unix ms; `failing_since` is the first failure since the last success."""

    consecutive_failures: int = 0
    failing_since: int | None = None
    last_success_at: int | None = None
    last_failure_at: int | None = None
    last_outcome: Outcome | None = None

    @property
    def status(self) -> Literal["unknown", "healthy", "failing"]:
        """`unknown`, `healthy` or `failing`."""
        if self.failing_since is not None:
            return "failing"
        return "unknown" if self.last_success_at is None else "healthy"

    def after(self, outcome: Outcome, now_ms: int, *, ours: bool) -> "Health":
        """The health after an attempt; a failure that is `ours` tells nothing about the endpoint."""
        if outcome is Outcome.DELIVERED:
            return Health(0, None, now_ms, self.last_failure_at, outcome)
        if ours:
            return self
        since = now_ms if self.failing_since is None else self.failing_since
        return Health(self.consecutive_failures + 1, since, self.last_success_at, now_ms, outcome)
