"""The reference model: what users and receivers know, in plain dictionaries. It checks every request of the engine.

It shares no code with the engine. A check may allow more than the engine does, never less. After a fault, a delivery
may be repeated; without one, it may not.
"""

import base64
import hashlib
import hmac
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.delivery.sending.http.request import Request

from .clock import AHEAD_MS_MAX, HOUR, MINUTE, SECOND, VirtualTime

TRACE_LINES = 60
JITTER = 0.1
FAULT_MARGIN_MS = 60 * SECOND
"""A fault may have effects for this time, in which the leases of dead processes end."""
_NUMBER = re.compile(rb'"data":\{"n":(\d+)')


class Violation(Exception):
    """The engine broke a promise."""


@dataclass(eq=False)
class Endpoint:
    """An endpoint as its owner knows it."""

    seq: int
    id: bytes
    account: int
    host: str
    secrets: list[str]
    types: tuple[str, ...]
    kinds: tuple[str, ...] | None
    """The values of `kind` that its filter accepts. None without a filter."""
    ordering: str
    schedules: list[tuple[int, ...]]
    """All retry schedules that it has had, newest last."""
    is_steady: bool
    created_at: int
    previous_until: int = 0
    """The time until which the old secret also signs."""
    rotated_at: int = 0
    is_off: bool = False
    """Whether it is paused or disabled."""
    off_at: int | None = None
    """The time from which no request may begin."""
    changed_at: int = 0
    """The time of the last change to its state or settings."""
    deleted_at: int | None = None
    orderings: int = 1
    """The number of times that its ordering was set."""
    offs: list[tuple[int, int | None]] = field(default_factory=list)
    """The periods in which it was paused or disabled, or might have been."""
    successes: list[int] = field(default_factory=list)
    """The times of successful requests that its process knows of."""
    replays: int = 0
    """The number of replays so far."""

    def matches(self, event: "Event") -> bool:
        """Return whether it receives an event."""
        named = not self.types or any(
            event.type == each or (each.endswith("*") and event.type.startswith(each[:-1])) for each in self.types
        )
        return named and (self.kinds is None or event.kind in self.kinds)

    def attempts_max(self) -> int:
        """Return the most attempts that a retry schedule has allowed."""
        return max(map(len, self.schedules)) + 1

    def attempts_min(self) -> int:
        """Return the fewest attempts after which retries can be exhausted."""
        return min(map(len, self.schedules)) + 1


@dataclass(eq=False)
class Event:
    """An event that a user sends."""

    n: int
    account: int
    type: str
    kind: str
    data: bytes
    key: str | None
    ordering_key: str | None
    expires_at: int | None
    sent_at: int
    id: bytes | None = None
    """Known after the response."""
    seq: int = 0
    accepted_at: int | None = None
    matching: list[Endpoint] = field(default_factory=list)
    """The endpoints that matched when the user sent it."""
    expected: list[Endpoint] = field(default_factory=list)
    """The endpoints that must get a delivery."""
    body: bytes | None = None
    """The body of the first request."""
    is_erased: bool = False


@dataclass(eq=False)
class Sent:
    """A request to a receiver."""

    at: int
    number: int
    process: int
    delivery: "Delivery | None"
    """None for a test event."""
    endpoint: Endpoint
    ended_at: int | None = None
    is_reported: bool = False
    is_success: bool = False
    is_egress_failure: bool = False
    retry_after_ms: int = 0


@dataclass(eq=False)
class Delivery:
    """A delivery and its requests."""

    event: Event
    endpoint: Endpoint
    sent: list[Sent] = field(default_factory=list)
    may_have_ended: bool = False
    """Whether it may have been cancelled, dropped or erased."""
    cancelled_at: int | None = None
    """The time from which the delivery is certainly cancelled."""
    manual_at: int | None = None
    """The time of its last resend or replay, whose attempts are outside the retry schedule."""


class Model:
    """All endpoints, events and deliveries, and the faults of the world."""

    def __init__(self, time: VirtualTime, *, seen_within_ms: int, late_ms: int) -> None:
        self.time = time
        self.seen_within_ms = seen_within_ms
        """How long a process may use the previous state of an endpoint."""
        self.late_ms = late_ms
        """The maximum delay of a first attempt to a steady receiver."""
        self.endpoints: dict[str, Endpoint] = {}
        self.events: dict[int, Event] = {}
        self.deliveries: dict[tuple[int, str], Delivery] = {}
        self.groups: dict[tuple[str, str | None], list[Delivery]] = {}
        """The deliveries of each order group, in the order of acceptance."""
        self.faults: list[tuple[int, int | None, int | None]] = []
        """The start, end (None: not ended) and process (None: all processes) of each fault."""
        self.storms: list[tuple[int, int]] = []
        """Periods in which even steady receivers are not reachable."""
        self.violation: str | None = None
        """The first violation that a request showed."""
        self.duplicates = 0
        self.requests = 0
        self.trace: deque[str] = deque(maxlen=TRACE_LINES)
        self.digest = hashlib.sha256()

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{format_time(self.time.now)} {text}")

    # ---- faults

    def begin_fault(self, process: int | None) -> int:
        """Note the start of a fault of one process or of all. Return its number."""
        self.faults.append((self.time.now, None, process))
        return len(self.faults) - 1

    def end_fault(self, number: int) -> None:
        """Note the end of a fault."""
        since, _, process = self.faults[number]
        self.faults[number] = since, self.time.now, process

    def fault(self, process: int | None) -> None:
        """Note a fault that ends immediately."""
        self.end_fault(self.begin_fault(process))

    def has_fault(self, since: int, until: int, *, process: int | None = None, margin: int = FAULT_MARGIN_MS) -> bool:
        """Return whether a fault of one process, or of any process, may have had effects in a period."""
        return any(
            began <= until and (ended is None or ended + margin >= since)
            and (process is None or of is None or of == process)
            for began, ended, of in reversed(self.faults)
        )  # fmt: skip

    # ---- requests

    def sent(self, process: int, host: str, request: Request) -> Sent:
        """Check a request when it begins."""
        now, endpoint = self.time.now, self.endpoints[host]
        self.requests += 1
        headers = dict(line.partition(b": ")[::2] for line in request.head.split(b"\r\n")[1:-2])
        event_id, number = request.body[7:43], int(headers[b"x-uplift-attempt"])
        self.digest.update(b"%d %s %s" % (now, host.encode(), request.head))
        self._check(headers[b"webhook-id"] == event_id, "the ID in the header differs from the one in the body", host)
        self._check_signature(endpoint, headers, request.body)
        self._check(self._may_send_after(endpoint.deleted_at, process), "a request to a deleted endpoint", host)
        if headers.get(b"x-uplift-test") == b"true":
            return Sent(now, number, process, None, endpoint)
        found = _NUMBER.search(request.body)
        if found is None:
            self._check(False, "the data differ from the event", host)
            return Sent(now, number, process, None, endpoint)
        event = self.events[int(found[1])]
        name = f"event {event.n} attempt {number} to {host}"
        self.note(f"process {process}: {name}")
        self._check(event.account == endpoint.account, "an event of another account", name)
        self._check(request.body.endswith(b',"data":' + event.data + b"}"), "the data differ from the event", name)
        if event.body is None:
            event.body = request.body
        self._check(event.body == request.body, "the body differs from an earlier attempt", name)
        self._check(self._may_send_after(endpoint.off_at, process), "a request to a paused or disabled endpoint", name)
        delivery = self.delivery(event, endpoint)
        sent = Sent(now, number, process, delivery, endpoint)
        if event.expires_at is not None:
            self._check(now < event.expires_at + SECOND, "a request for an expired event", name)
        if delivery.manual_at is None:
            self._check(self._may_send_after(delivery.cancelled_at, process), "a cancelled delivery is sent", name)
        if delivery.sent:
            self._check_repeat(delivery, sent, name)
        else:
            self._check_first(delivery, sent, name)
        self._check_order(delivery, sent, name)
        delivery.sent.append(sent)
        return sent

    def ended(self, sent: Sent, exchange: Exchange, *, reported: bool) -> None:
        """Note the end of a request."""
        sent.ended_at, sent.is_reported = self.time.now, reported
        sent.is_success = exchange.status_code is not None and 200 <= exchange.status_code < 300
        sent.is_egress_failure = exchange.failure is Failure.EGRESS
        sent.retry_after_ms = int(exchange.retry_after or 0) * SECOND
        if reported and sent.delivery is not None and sent.is_success:
            sent.endpoint.successes.append(self.time.now)

    def delivery(self, event: Event, endpoint: Endpoint) -> Delivery:
        """Return the delivery of an event to an endpoint."""
        key = event.n, endpoint.host
        if key not in self.deliveries:
            self.deliveries[key] = Delivery(event, endpoint)
        return self.deliveries[key]

    def join_group(self, event: Event, endpoint: Endpoint) -> None:
        """Add a delivery of an accepted event to its order group."""
        delivery = self.delivery(event, endpoint)
        if endpoint.ordering == "endpoint":
            self.groups.setdefault((endpoint.host, None), []).append(delivery)
        elif endpoint.ordering == "key" and event.ordering_key is not None:
            self.groups.setdefault((endpoint.host, event.ordering_key), []).append(delivery)

    def _may_send_after(self, at: int | None, process: int) -> bool:
        """Return whether a process may still send a request that a change at time `at` forbids (None: no change)."""
        now = self.time.now
        return at is None or now <= at + self.seen_within_ms or self.has_fault(at, now, process=process)

    def _check(self, holds: bool, promise: str, subject: str) -> None:
        # The caller is the engine, which would catch an exception. Therefore, the month raises the violation later.
        if not holds and self.violation is None:
            self.violation = f"{promise}: {subject} at {format_time(self.time.now)}"

    def _check_signature(self, endpoint: Endpoint, headers: dict[bytes, bytes], body: bytes) -> None:
        content = headers[b"webhook-id"] + b"." + headers[b"webhook-timestamp"] + b"." + body
        signatures = headers[b"webhook-signature"].split()
        recent = self.time.now - endpoint.rotated_at <= self.seen_within_ms
        secret = endpoint.secrets[-1]
        wanted = [secret]
        if self.time.now < endpoint.previous_until - SECOND:
            wanted = endpoint.secrets[-2:]
        if recent or self.has_fault(endpoint.rotated_at, endpoint.rotated_at + MINUTE):
            # The process may not know the new secret yet.
            self._check(any(_sign(each, content) in signatures for each in endpoint.secrets[-2:]), "no signature", "")
            return
        for each in wanted:
            self._check(_sign(each, content) in signatures, "a signature does not verify", endpoint.host)
        if self.time.now > endpoint.previous_until + SECOND and len(endpoint.secrets) > 1:
            self._check(_sign(endpoint.secrets[-2], content) not in signatures, "an old secret signs", endpoint.host)

    def _check_first(self, delivery: Delivery, sent: Sent, name: str) -> None:
        event, endpoint, now = delivery.event, delivery.endpoint, sent.at
        self._check(sent.number == 1 or delivery.manual_at is not None, "the first attempt has a higher number", name)
        if endpoint not in event.matching and delivery.manual_at is None:
            # A process may not have seen a change by another process yet.
            is_new = endpoint.changed_at + self.seen_within_ms >= event.sent_at
            self._check(is_new or self.has_fault(event.sent_at - HOUR, now), "an endpoint without a match", name)
        if self.must_be_prompt(delivery):
            self._check(now - event.sent_at <= self.late_ms, "late although the receiver is steady", name)

    def must_be_prompt(self, delivery: Delivery) -> bool:
        """Return whether the first attempt must be immediate: the receiver is steady, without a fault or pause."""
        event, endpoint = delivery.event, delivery.endpoint
        if not endpoint.is_steady or endpoint not in event.matching:
            return False
        since = event.sent_at - 10 * MINUTE
        return (
            endpoint.ordering == "none"
            and endpoint.orderings == 1
            and endpoint.changed_at < since
            and not endpoint.is_off
            and not delivery.may_have_ended
            and not event.is_erased
            and (event.expires_at is None or event.expires_at > event.sent_at + MINUTE)
            and not any(until is None or until >= since for _, until in endpoint.offs)
            and not self.has_fault(since, self.time.now)
            and not any(began <= self.time.now and ended + HOUR >= since for began, ended in self.storms)
        )

    def _check_repeat(self, delivery: Delivery, sent: Sent, name: str) -> None:
        before = delivery.sent[-1]
        has_fault = self.has_fault(
            before.at, (before.ended_at or sent.at) + FAULT_MARGIN_MS // 2, process=before.process
        )
        if delivery.manual_at is not None and delivery.manual_at + DAY_OF_EFFECTS >= before.at:
            return
        self._check(before.ended_at is not None or has_fault, "two concurrent attempts of a delivery", name)
        if before.ended_at is None:
            self.duplicates += 1
            return
        if before.is_success:
            self._check(has_fault, "a delivered event is sent again", name)
            self.duplicates += 1
            return
        if has_fault:
            return
        self._check(sent.number == before.number + 1, f"attempt {sent.number} after attempt {before.number}", name)
        endpoint = delivery.endpoint
        was_off = any(since <= sent.at and (until is None or until >= before.at) for since, until in endpoint.offs)
        if was_off:
            return
        # The clocks of two processes can differ by up to 2 * AHEAD_MS_MAX.
        slack = 1 if sent.process == before.process else 1 + 2 * AHEAD_MS_MAX
        waited = sent.at - before.ended_at
        shortest = min(
            (each[min(before.number, len(each)) - 1] if not self._has_extra(delivery) else min(each))
            for each in endpoint.schedules
            if each
        )
        self._check(
            waited >= (1 - JITTER) * shortest - slack,
            f"early: {waited} ms instead of {shortest} ms after a failure",
            name,
        )
        self._check(waited >= before.retry_after_ms - slack, "before the time that the receiver requested", name)

    def _has_extra(self, delivery: Delivery) -> bool:
        """Return whether some attempts may be outside the retry schedule."""
        return delivery.manual_at is not None or any(each.is_egress_failure for each in delivery.sent)

    def _check_order(self, delivery: Delivery, sent: Sent, name: str) -> None:
        endpoint, event = delivery.endpoint, delivery.event
        if delivery.sent or endpoint.orderings > 1 or endpoint.ordering == "none" or delivery.manual_at is not None:
            return
        group = self.groups.get((endpoint.host, None if endpoint.ordering == "endpoint" else event.ordering_key), [])
        if delivery not in group:
            return  # The response to the event was lost, so the place of the delivery in the group is unknown.
        for earlier in group[: group.index(delivery)]:
            self._check(self._may_have_ended(earlier), f"it overtakes event {earlier.event.n}", name)

    def _may_have_ended(self, delivery: Delivery) -> bool:
        event, now = delivery.event, self.time.now
        if delivery.may_have_ended or event.is_erased or delivery.manual_at is not None:
            return True
        longest = max((max(each, default=0) for each in delivery.endpoint.schedules), default=0)
        if event.expires_at is not None and event.expires_at <= now + 2 * longest + DAY_OF_EFFECTS:
            return True
        counted = {each.number for each in delivery.sent if each.ended_at is not None and not each.is_egress_failure}
        return any(each.is_success for each in delivery.sent) or len(counted) >= delivery.endpoint.attempts_min()


DAY_OF_EFFECTS = 24 * HOUR
"""The model assumes that a resend or a replay starts within this time after the request for it."""


def format_time(now: int) -> str:
    """Return the day of the month and the time."""
    seconds, ms = divmod(now - START_OF_MONTH, SECOND)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"day {days} {hours:02}:{minutes:02}:{seconds:02}.{ms:03}"


def _sign(secret: str, content: bytes) -> bytes:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return b"v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest())


def new_secret(key: bytes) -> str:
    """Return the secret with this key."""
    return "whsec_" + base64.b64encode(key).decode()


START_OF_MONTH: Any = 1_764_000_000_000
