"""Counts the events that the demo sends and that its receivers accept."""

from collections import OrderedDict, deque
from dataclasses import asdict, dataclass
from typing import Any, Final

from uplift_server.cli.demo.receiver import SHAKY, STEADY, Arrival

REMEMBERED_MAX: Final = 10_000
"""Maximum number of finished events that the tally keeps to recognize duplicates."""
LATENCIES_MAX: Final = 100_000
"""Maximum number of recent latencies that the tally keeps to compute percentiles."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a demo run. A latency is the time from sending an event to its arrival at the steady receiver."""

    sent: int
    steady_verified: int
    shaky_verified: int
    failed_attempts: int
    retried_events: int
    duplicates: int
    unverified: int
    unfinished: int
    """Number of deliveries whose status is not `delivered`."""
    p50_ms: float | None
    p99_ms: float | None
    seconds: float
    planned: int | None = None
    """Number of events to send (`--events`), or None if there is no limit."""

    @property
    def complete(self) -> bool:
        """Whether both receivers accepted every event, all signatures were valid, and no delivery is unfinished.

        False if the demo was stopped before it had sent the planned number of events.
        """
        if self.planned not in (None, self.sent):
            return False
        everywhere = self.steady_verified == self.shaky_verified == self.sent
        return everywhere and not self.unverified and not self.unfinished

    def as_json(self) -> dict[str, Any]:
        """Return the summary as a JSON object."""
        return {"kind": "summary", "complete": self.complete, **asdict(self)}


class Tally:
    """Counts the events of this run that the receivers `steady` and `shaky` accept.

    With `--data-dir`, the server may also deliver events of earlier runs, which the tally does not count. The tally
    keeps the events in flight and a limited number of finished events, so that an endless run uses constant memory.
    """

    def __init__(self) -> None:
        self._in_flight: dict[str, float] = {}
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
        """Return the number of this run's events that a receiver verified and accepted."""
        return self._delivered[receiver]

    def outstanding(self) -> int:
        """Return the number of deliveries that the receivers have not accepted yet."""
        return sum(self.sent - count for count in self._delivered.values())

    def handed_over(self, event: str, at: float) -> None:
        """Record that the demo sent an event. `at` is a value of `time.perf_counter()`."""
        self.sent += 1
        self._in_flight[event] = at

    def arrived(self, arrival: Arrival) -> None:
        """Record a received request."""
        if arrival.problem is not None:
            self.unverified += 1
        elif arrival.receiver not in self._delivered:
            return
        elif not 200 <= arrival.status < 300:
            self.failed_attempts += 1
            if arrival.event in self._in_flight and arrival.event not in self._retried:
                self._retried.add(arrival.event)
                self.retried_events += 1
        elif (arrival.receiver, arrival.event) in self._accepted:
            self.duplicates += 1
        else:
            self._accept(arrival)

    def _accept(self, arrival: Arrival) -> None:
        event = arrival.event
        self._accepted[arrival.receiver, event] = None
        if len(self._accepted) > len(self._delivered) * (REMEMBERED_MAX + len(self._in_flight)):
            self._accepted.popitem(last=False)
        at = self._in_flight.get(event)
        if at is None:
            return
        self._delivered[arrival.receiver] += 1
        if arrival.receiver == STEADY:
            self._latencies.append((arrival.at - at) * 1000)
        if all((receiver, event) in self._accepted for receiver in self._delivered):
            self._finished[event] = self._in_flight.pop(event)
            self._retried.discard(event)
            if len(self._finished) > REMEMBERED_MAX:
                self._finished.popitem(last=False)

    def latency_ms(self, arrival: Arrival) -> float | None:
        """Return the milliseconds from sending the event to receiving the request.

        Return None for an unknown or old event.
        """
        at = self._in_flight.get(arrival.event, self._finished.get(arrival.event))
        return None if at is None else round((arrival.at - at) * 1000, 2)

    def summary(self, *, unfinished: int, seconds: float, planned: int | None = None) -> Summary:
        """Return the summary so far."""
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
            planned=planned,
        )


def _percentile(ordered: list[float], percent: int) -> float | None:
    if not ordered:
        return None
    return round(ordered[max(0, -(-len(ordered) * percent // 100) - 1)], 2)
