"""The demonstration's bookkeeping: what was sent, what arrived and what is missing."""

from dataclasses import asdict, dataclass
from typing import Any

from uplift_server.cli.demo.receiver import SHAKY, STEADY, Arrival


@dataclass(frozen=True, slots=True)
class Summary:
    """How it went. Latencies are from handing an event over to its arrival at the steady receiver."""

    sent: int
    steady_verified: int
    shaky_verified: int
    failed_attempts: int
    retried_events: int
    duplicates: int
    unverified: int
    unfinished: int
    """Deliveries the server itself does not call delivered."""
    p50_ms: float | None
    p99_ms: float | None
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every event arrived and was verified at both receivers, and the server knows it."""
        everywhere = self.steady_verified == self.shaky_verified == self.sent
        return everywhere and not self.unverified and not self.unfinished

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"kind": "summary", "complete": self.complete, **asdict(self)}


class Tally:
    """Counts by event, for those this run sent: a kept database may still deliver earlier ones."""

    def __init__(self) -> None:
        self._handed_over: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._accepted: dict[str, set[str]] = {STEADY: set(), SHAKY: set()}
        self._retried: set[str] = set()
        self.failed_attempts = 0
        self.duplicates = 0
        self.unverified = 0

    @property
    def sent(self) -> int:
        """How many events were handed over."""
        return len(self._handed_over)

    def delivered(self, receiver: str) -> int:
        """How many of them a receiver verified and answered with success."""
        return len(self._accepted[receiver] & self._handed_over.keys())

    def outstanding(self) -> int:
        """How many deliveries have not arrived yet."""
        return sum(self.sent - self.delivered(receiver) for receiver in self._accepted)

    def handed_over(self, event: str, at: float) -> None:
        """Note an event that the server is asked to accept now, at `at`."""
        self._handed_over[event] = at

    def arrived(self, arrival: Arrival) -> None:
        """Note a request."""
        if arrival.problem is not None:
            self.unverified += 1
        elif not 200 <= arrival.status < 300:
            self.failed_attempts += 1
            self._retried.add(arrival.event)
        elif arrival.event in self._accepted[arrival.receiver]:
            self.duplicates += 1
        else:
            self._accepted[arrival.receiver].add(arrival.event)
            if arrival.receiver == STEADY:
                self._first[arrival.event] = arrival.at

    def latency_ms(self, arrival: Arrival) -> float | None:
        """From handing over to this arrival; None for an event this run did not send."""
        at = self._handed_over.get(arrival.event)
        return None if at is None else round((arrival.at - at) * 1000, 2)

    def summary(self, *, unfinished: int, seconds: float) -> Summary:
        """How it went, as far as it went."""
        latencies = sorted(
            (self._first[event] - at) * 1000 for event, at in self._handed_over.items() if event in self._first
        )
        return Summary(
            sent=self.sent,
            steady_verified=self.delivered(STEADY),
            shaky_verified=self.delivered(SHAKY),
            failed_attempts=self.failed_attempts,
            retried_events=len(self._retried & self._handed_over.keys()),
            duplicates=self.duplicates,
            unverified=self.unverified,
            unfinished=unfinished,
            p50_ms=_percentile(latencies, 50),
            p99_ms=_percentile(latencies, 99),
            seconds=round(seconds, 2),
        )


def _percentile(ordered: list[float], percent: int) -> float | None:
    """The nearest-rank percentile."""
    if not ordered:
        return None
    return round(ordered[max(0, -(-len(ordered) * percent // 100) - 1)], 2)
