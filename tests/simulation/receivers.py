"""Receivers with scripted weaknesses, and the network between them and the senders of all processes."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.delivery.sending.http.request import Done, Request

from .clock import DAY, HOUR, MINUTE, SECOND, ProcessClock, VirtualTime

TIMEOUT_MS = 15 * SECOND


class Kind(Enum):
    """The weakness of a receiver."""

    STEADY = "steady"
    FLAPPING = "flapping"
    SLOW = "slow"
    DYING = "dying"
    THROTTLING = "throttling"
    HANGING = "hanging"


@dataclass
class Down:
    """A period in which every request to a receiver fails."""

    since: int
    until: int
    kind: int


@dataclass
class Receiver:
    """The receiver of one endpoint."""

    host: str
    kind: Kind
    random: random.Random
    downs: list[Down] = field(default_factory=list)
    is_healed: bool = False
    """Whether all requests succeed from now on."""

    @classmethod
    def drawn(cls, rng: random.Random, host: str, kind: Kind, since: int, days: int) -> "Receiver":
        """Return a random receiver of a kind. A dying receiver is repeatedly down, for at most 9 days each time."""
        downs, at = [], since
        while kind is Kind.DYING and at < since + days * DAY:
            at += rng.randrange(HOUR, 6 * DAY)
            lasts = rng.choice((10 * MINUTE, 5 * HOUR, 2 * DAY, 4 * DAY, 6 * DAY, 9 * DAY))
            downs.append(Down(at, at + lasts, rng.randrange(5)))
            at += lasts
        return cls(host, kind, random.Random(rng.random()), downs)

    def respond(self, now: int) -> tuple[Exchange, int]:
        """Return the exchange for a request, and its duration in ms."""
        draw = self.random
        latency = draw.randrange(5, 300)
        if self.is_healed or self.kind is Kind.STEADY:
            return _status(200), latency
        if any(down.since <= now < down.until for down in self.downs):
            return self._fail(next(down.kind for down in self.downs if down.since <= now < down.until), latency)
        if self.kind is Kind.SLOW:
            latency = draw.randrange(2 * SECOND, 18 * SECOND)
            return (_status(200), latency) if latency < TIMEOUT_MS else (_timeout(), TIMEOUT_MS)
        if self.kind is Kind.HANGING and draw.random() < 0.7:
            return _timeout(), TIMEOUT_MS
        if self.kind is Kind.THROTTLING and draw.random() < 0.4:
            return _status(429, retry_after=str(draw.randrange(1, 900))), latency
        if self.kind is Kind.FLAPPING and draw.random() < 0.4:
            return self._fail(draw.randrange(5), latency)
        return _status(200), latency

    def _fail(self, kind: int, latency: int) -> tuple[Exchange, int]:
        if kind == 0:
            return _timeout(), TIMEOUT_MS
        if kind == 1:
            return Exchange(0, 1000, failure=Failure.CONNECT, error="connection refused"), latency
        return _status((503, 500, 404)[kind - 2]), latency


def _status(status: int, *, retry_after: str | None = None) -> Exchange:
    head = b"HTTP/1.1 %d X\r\n\r\n" % status
    return Exchange(0, 1000, status_code=status, response_head=head, retry_after=retry_after)


def _timeout() -> Exchange:
    return Exchange(0, TIMEOUT_MS * 1000, failure=Failure.TIMEOUT, error="no response")


class Observer(Protocol):
    """Follows all requests."""

    requests: int
    violation: str | None

    def sent(self, process: int, host: str, request: Request) -> Any:
        """Check a request when it starts. Return it for `ended`."""

    def ended(self, sent: Any, exchange: Exchange, *, reported: bool) -> None:
        """Note the end of a request. `reported` is whether the process gets the exchange."""


class Network:
    """All receivers by host name."""

    def __init__(self, time: VirtualTime, observer: Observer) -> None:
        self.time = time
        self.observer = observer
        self.receivers: dict[str, Receiver] = {}
        self.is_down = False
        """Whether no receiver is reachable because of our own network."""
        self.is_egress_down = False
        """Whether the egress proxy fails, which senders can tell from failures of receivers."""
        self.in_flight = 0

    def send(self, sender: "ProcessSender", request: Request, done: Done) -> None:
        """Send a request of a process."""
        host, now = request.target.host, self.time.now
        sent = self.observer.sent(sender.number, host, request)
        exchange, wait = self.receivers[host].respond(now)
        if self.is_egress_down:
            exchange, wait = Exchange(0, 1000, failure=Failure.EGRESS, error="the proxy failed"), 20
        elif self.is_down:
            exchange, wait = Exchange(0, 1000, failure=Failure.CONNECT, error="no route to host"), 20
        exchange = exchange._replace(started_at=now + sender.clock.ahead, duration_us=wait * 1000)
        self.in_flight += 1

        def arrive() -> None:
            self.in_flight -= 1
            if sender.clock.is_stopped:
                self.observer.ended(sent, exchange, reported=False)
            else:
                sender.when_awake(finish)

        def finish() -> None:
            is_reported = not sender.clock.is_stopped
            self.observer.ended(sent, exchange, reported=is_reported)
            if is_reported:
                done(request, exchange)

        self.time.call_at(now + wait, arrive)


class ProcessSender:
    """The sender of one process."""

    def __init__(self, network: Network, number: int, clock: ProcessClock) -> None:
        self.network = network
        self.number = number
        self.clock = clock

    async def start(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing: a stop waits for the attempts in flight."""

    def send(self, request: Request, done: Done) -> None:
        """Send a request."""
        self.network.send(self, request, done)

    def when_awake(self, call: Callable[[], None]) -> None:
        """Call back now, or after the suspension of the process."""
        if self.network.time.now < self.clock.suspended_until:
            self.network.time.call_at(self.clock.suspended_until, call)
        else:
            call()
