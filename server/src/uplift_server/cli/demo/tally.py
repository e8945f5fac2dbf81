"""The demonstration's bookkeeping: what was sent, what arrived and what is missing."""

from collections import OrderedDict, deque
from dataclasses import asdict, dataclass
from typing import Any, Final

from uplift_server.cli.demo.receiver import SHAKY, STEADY, Arrival

REMEMBERED_MAX: Final = 10_000
"""How many of the last finished events are remembered, to know repeats of them."""
LATENCIES_MAX: Final = 100_000
"""How many of the last latencies the percentiles are of: all, in a run that has an end."""


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
    """Counts by event, for those this run sent: a kept database may still deliver earlier ones.

    It remembers what is in flight and a number of what came last, so that a run without end needs no more and more.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, float] = {}
        self._finished: OrderedDict[str, float] = OrderedDict()
        self._accepted: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._latencies: deque[float] = deque(maxlen=LATENCIES_MAX)
        self._retried: set[str] = set()
        self._delivered = {STEADY: 0, SHAKY: 0}
        self.sent = 0
        self.retried_events = 0
        self.failed_attempts = 0
        self.duplicates = 0
        self.unverified = 0

    def delivered(self, receiver: str) -> int:
        """How many events of this run a receiver verified and answered with success."""
        return self._delivered[receiver]

    def outstanding(self) -> int:
        """How many deliveries have not arrived yet."""
        return sum(self.sent - count for count in self._delivered.values())

    def handed_over(self, event: str, at: float) -> None:
        """Note an event that the server is asked to accept now, at `at`."""
        self.sent += 1
        self._under_way[event] = at

    def arrived(self, arrival: Arrival) -> None:
        """Note a request."""
        if arrival.problem is not None:
            self.unverified += 1
        elif not 200 <= arrival.status < 300:
            self.failed_attempts += 1
            if arrival.event in self._under_way and arrival.event not in self._retried:
                self._retried.add(arrival.event)
                self.retried_events += 1
        elif (arrival.receiver, arrival.event) in self._accepted:
            self.duplicates += 1
        else:
            self._accept(arrival)

    def _accept(self, arrival: Arrival) -> None:
        event = arrival.event
        self._accepted[arrival.receiver, event] = None
        if len(self._accepted) > len(self._delivered) * (REMEMBERED_MAX + len(self._under_way)):
            self._accepted.popitem(last=False)
        at = self._under_way.get(event)
        if at is None:
            return
        self._delivered[arrival.receiver] += 1
        if arrival.receiver == STEADY:
            self._latencies.append((arrival.at - at) * 1000)
        if all((receiver, event) in self._accepted for receiver in self._delivered):
            self._finished[event] = self._under_way.pop(event)
            self._retried.discard(event)
            if len(self._finished) > REMEMBERED_MAX:
                self._finished.popitem(last=False)

    def latency_ms(self, arrival: Arrival) -> float | None:
        """From handing over to this arrival; None for an event this run did not send, or long ago."""
        at = self._under_way.get(arrival.event, self._finished.get(arrival.event))
        return None if at is None else round((arrival.at - at) * 1000, 2)

    def summary(self, *, unfinished: int, seconds: float) -> Summary:
        """How it went, as far as it went."""
        latencies = sorted(self._latencies)
        return Summary(
            sent=self.sent,
            steady_verified=self.delivered(STEADY),
            shaky_verified=self.delivered(SHAKY),
            failed_attempts=self.failed_attempts,
            retried_events=self.retried_events,
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
