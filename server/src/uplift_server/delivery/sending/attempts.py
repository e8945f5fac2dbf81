"""Sends a leased delivery as a signed request, and derives the delivery's outcome from the response."""

import random
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from uplift_server.core.deliveries.causes import SIGNED_WRONGLY, shown_location
from uplift_server.core.deliveries.outcomes import RESPONDED, Outcome, classify, is_own_fault
from uplift_server.core.deliveries.responses import first_line
from uplift_server.core.endpoint_settings import AttemptTimeouts
from uplift_server.core.events.catalog import WEBHOOK_CREATED
from uplift_server.core.events.envelope import event_id_of
from uplift_server.core.http import request_headers
from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.ids import delivery_id, uuid_text
from uplift_server.core.lifecycle import (
    DELIVERED,
    OPEN,
    NextState,
    Trigger,
    after_failure,
    after_skip,
    may_be_sent,
    previous,
)
from uplift_server.core.limits import LEASE_LEFT_MS_MIN
from uplift_server.core.scheduling.circuit_breaker import BreakerRule
from uplift_server.core.scheduling.lane import Lane
from uplift_server.core.scheduling.retry_schedule import RetrySchedule, retry_after_ms
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint, LiveEventType
from uplift_server.delivery.health.circuit_breaker import update_breaker
from uplift_server.delivery.ports import Clock, Shards
from uplift_server.delivery.request_parts import wrong_signer
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.delivery.sending.access_tokens import AUTHORIZATION_MASKED, AccessTokens
from uplift_server.delivery.sending.http.request import Request, RequestSender
from uplift_server.delivery.sending.settler import Settler
from uplift_server.observe.attempt_log import AttemptLine
from uplift_server.observe.counters import EngineCounters
from uplift_server.store.hot_records import AttemptRow, LeasedDelivery, Settlement
from uplift_server.store.records import EndpointState, HeldAction

RANDOM_SEED_BYTES: Final = 16
EGRESS_WAIT_MS_MIN: Final = 60_000
"""Minimum wait after a failure of the egress proxy or egress IP, in ms.

An attempt with such a failure does not count as a scheduled attempt.
"""
_EGRESS_SCHEDULE: Final = RetrySchedule((EGRESS_WAIT_MS_MIN,))
"""The retry schedule after a failure of the egress proxy or egress IP, if the endpoint has no retry delays."""
GONE: Final = 410
UNAUTHORIZED: Final = 401
# Use constants, because looking up a member of an enumeration takes longer than counting an attempt.
_SCHEDULE: Final = Trigger.SCHEDULE
_TEST: Final = Trigger.TEST
_ENABLED: Final = EndpointState.ENABLED
_EGRESS: Final = Failure.EGRESS
_DELIVERED: Final = Outcome.DELIVERED
_REDIRECT: Final = Outcome.REDIRECT
# A success widens the lane's window of concurrent attempts, and a timeout resets it. Other outcomes do not change it.
_SUCCESS = {Outcome.DELIVERED: True, Outcome.TIMEOUT: False}


class LeaseReleases(Protocol):
    """The interface that releases the leases of deliveries that were not attempted."""

    def release_lease(self, delivery: LeasedDelivery) -> None:
        """Release the lease of a delivery that was not attempted."""


class RunningReplays(Protocol):
    """The interface that reports whether replays are running."""

    def runs(self, replay_seq: int) -> bool:
        """Return whether the server may send deliveries of a replay."""


class HealthListener(Protocol):
    """The interface that informs the health monitor about the results of attempts."""

    def note(self, endpoint: LiveEndpoint) -> None:
        """Watch an endpoint after a failed attempt, or after the first success that follows a failure."""

    def note_gone_response(self, endpoint: LiveEndpoint) -> None:
        """Handle a 410 response from an endpoint."""


class _InFlight(msgspec.Struct, frozen=True):
    """The context of an exchange in flight."""

    lane: Lane[LeasedDelivery]
    delivery: LeasedDelivery
    endpoint: LiveEndpoint
    event_type: LiveEventType
    number: int
    head: bytes
    """The request line and headers, with the values of custom headers masked.

    Empty while the attempt waits for an access token.
    """


class Attempts:
    """Starts attempts, and passes their outcomes to the settler."""

    def __init__(
        self,
        cache: EndpointCache,
        shards: Shards,
        lanes: DeliveryLanes,
        sender: RequestSender,
        tokens: AccessTokens,
        settler: Settler,
        dispatcher: LeaseReleases,
        replays: RunningReplays,
        monitor: HealthListener,
        clock: Clock,
        counters: EngineCounters,
        *,
        schedule: RetrySchedule,
        breaker: BreakerRule,
        timeouts: AttemptTimeouts,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._cache = cache
        self._shards = shards
        self._lanes = lanes
        self._sender = sender
        self._tokens = tokens
        self._settler = settler
        self._clock = clock
        self._counters = counters
        self._schedule = schedule
        self._breaker = breaker
        self._timeouts = timeouts
        self._release_lease = dispatcher.release_lease
        self._replays = replays
        self._monitor = monitor
        self._aborting = False
        self._random = random.Random(random_bytes(RANDOM_SEED_BYTES))  # noqa: S311 - jitter needs no secrecy

    def abort(self) -> None:
        """Prepare for the shutdown of the sender, which aborts the attempts in flight.

        If an attempt then ends without a complete response, release its lease, and do not count it as a failure.
        """
        self._aborting = True

    def start(self, lane: Lane[LeasedDelivery], delivery: LeasedDelivery) -> None:
        """Attempt a delivery, unless the server must not send it or this process cannot send it now.

        If the server must not send the delivery, store its new status. If this process cannot send it now, release its
        lease.
        """
        now = self._clock.now_ms()
        endpoint = self._cache.endpoints.get(delivery.endpoint_seq)
        if self._lanes.erased and delivery.event_seq in self._lanes.erased:
            self._lanes.attempt_ended(lane, now)
            return
        timeout_ms = self._timeouts.default_ms if endpoint is None else self._timeouts.of(endpoint.record.settings)
        if delivery.lease_until - now < timeout_ms + LEASE_LEFT_MS_MIN:
            # The lease could end during the attempt. Also release the later deliveries of the lane, to keep the order.
            for late in (delivery, *self._lanes.empty(delivery.endpoint_seq)):
                self._release_lease(late)
            self._lanes.attempt_ended(lane, now)
            return
        if not self._shards.may_send() or (endpoint is not None and not self._shards.owns(endpoint.seq)):
            # Another process took over the endpoint after this delivery was queued, or could have taken it over.
            self._release_lease(delivery)
            self._lanes.attempt_ended(lane, now)
            return
        if endpoint is None or not self._may_send(delivery, endpoint, now):
            verdict = after_skip(
                before=previous_state(delivery),
                deleted=endpoint is None or endpoint.deleted,
                off=endpoint is not None and _is_off(endpoint),
                expires_at=delivery.expires_at,
                now_ms=now,
            )
            self._settler.add(unattempted(delivery, verdict, now))
            self._lanes.attempt_ended(lane, now)
            return
        event_type = self._cache.event_types_by_seq.get(delivery.type_seq)
        if event_type is None:
            # Another process has just created the event type, and the cache does not have it yet.
            self._release_lease(delivery)
            self._lanes.attempt_ended(lane, now)
            return
        oauth, authorization = endpoint.parts.oauth, None
        number = delivery.attempts_made + 1
        if oauth is not None:
            authorization = self._tokens.header_of(endpoint)
            if authorization is None:
                flight = _InFlight(lane, delivery, endpoint, event_type, number, b"")
                self._tokens.request(endpoint, oauth, lambda failed: self._resume(flight, failed))
                return
        self._send(lane, delivery, endpoint, event_type, number, authorization, timeout_ms, now)

    def _resume(self, flight: _InFlight, failed: Exchange | None) -> None:
        """Continue an attempt that waited for an access token."""
        if failed is None:
            self.start(flight.lane, flight.delivery)
            self._lanes.pump()
        else:
            self._done(Request(flight.endpoint.parts.target, b"", b"", flight), failed)

    def _send(
        self,
        lane: Lane[LeasedDelivery],
        delivery: LeasedDelivery,
        endpoint: LiveEndpoint,
        event_type: LiveEventType,
        number: int,
        authorization: bytes | None,
        timeout_ms: int,
        now: int,
    ) -> None:
        body = delivery.body
        event_id = event_id_of(body)
        timestamp = b"%d" % (self._clock.wall_ms() // 1000)
        parts = endpoint.parts
        if now >= parts.signer_until:
            parts.end_overlap()
        signer = wrong_signer() if delivery.wrong_signature else parts.signer
        head = parts.head.render(
            event_id=event_id,
            event_hex=delivery.event_id.hex().encode(),
            event_type=event_type.name_bytes,
            number=number,
            timestamp=timestamp,
            signatures=signer.sign(event_id, timestamp, body),
            body_bytes=len(body),
        )
        if delivery.trigger is _TEST:
            head += request_headers.TEST
        shown = head
        if authorization is not None:
            head, shown = head + authorization, head + AUTHORIZATION_MASKED
        self._sender.send(
            Request(
                parts.target,
                head + parts.head.custom,
                body,
                _InFlight(lane, delivery, endpoint, event_type, number, shown + parts.head.custom_masked),
                timeout_ms,
            ),
            self._done,
        )

    def _done(self, request: Request, exchange: Exchange) -> None:
        flight: _InFlight = request.context
        now = self._clock.now_ms()
        if self._aborting and exchange.failure is not None:
            self._release_lease(flight.delivery)
            self._lanes.attempt_ended(flight.lane, now)
            return
        succeeded = None
        try:
            succeeded = self._end(flight, exchange, now)
        except Exception:
            self._lanes.park(flight.delivery.event_seq, flight.delivery.endpoint_seq)
            raise
        finally:
            # Free the slot even after a defect. Otherwise, the lane could not use it again.
            self._lanes.attempt_ended(flight.lane, now, exchange.duration_us, succeeded=succeeded)
            self._lanes.pump()

    def _end(self, flight: _InFlight, exchange: Exchange, now: int) -> bool | None:
        """Settle an attempt. Return whether it widens or resets the lane's window (None: neither)."""
        delivery, endpoint, number = flight.delivery, flight.endpoint, flight.number
        outcome = classify(exchange)
        is_test = delivery.trigger is _TEST
        counts = not is_test and flight.event_type.name != WEBHOOK_CREATED
        # Settle a test, because its caller waits. For an erased event, the settlement stores nothing.
        if self._lanes.erased and delivery.event_seq in self._lanes.erased and not is_test:
            # The content of the response must not be stored or shown. The health of an endpoint contains it after a
            # failure, but not after a success.
            if outcome is _DELIVERED:
                self._update_health(flight, outcome, exchange, now, counts=counts)
                self._settler.write_health()
            return None
        self._count(flight, outcome, exchange, now)
        if not is_test:
            self._update_health(flight, outcome, exchange, now, counts=counts)
        counted = delivery.trigger is _SCHEDULE and exchange.failure is not _EGRESS
        scheduled = delivery.scheduled_attempts + counted
        if outcome is _DELIVERED:
            verdict = DELIVERED
        else:
            if exchange.status_code == UNAUTHORIZED:
                self._tokens.discard(endpoint, exchange.started_at)
            verdict = self._after_failure(delivery, endpoint, exchange, scheduled, now)
        settlement = Settlement(
            delivery.event_seq,
            delivery.endpoint_seq,
            delivery.fence,
            verdict.status,
            verdict.due_at,
            number,
            scheduled,
            outcome,
            verdict.failed_reason,
            None if verdict.status in OPEN else now,
            _row(flight, outcome, exchange),
            delivery.replay_seq,
            delivery.order_group,
        )
        self._settler.add(settlement, _line(flight, outcome, exchange, verdict))
        return _SUCCESS.get(outcome) if counts else None

    def _count(self, flight: _InFlight, outcome: Outcome, exchange: Exchange, now: int) -> None:
        counters, delivery = self._counters, flight.delivery
        counters.attempts[outcome] += 1
        counters.attempt_durations.observe(exchange.duration_us)
        if delivery.trigger is _SCHEDULE:
            if flight.number == 1:
                counters.first_attempt_delays.observe(exchange.started_at - delivery.created_at)
            if outcome is _DELIVERED:
                counters.delivery_delays.observe(now - delivery.created_at)
        if exchange.failure is not None and is_own_fault(exchange):
            counters.own_failures += 1
            counters.recent_own_failures.note(sum(counters.attempts), now / 1000)
        if exchange.repeated:
            counters.requests_repeated += 1

    def _may_send(self, delivery: LeasedDelivery, endpoint: LiveEndpoint, now: int) -> bool:
        replay = delivery.replay_seq
        return (
            not endpoint.deleted
            and (replay is None or self._replays.runs(replay))
            and may_be_sent(
                trigger=delivery.trigger,
                fence=delivery.fence,
                enabled=endpoint.record.state is _ENABLED,
                expires_at=delivery.expires_at,
                now_ms=now,
            )
        )

    def _after_failure(
        self, delivery: LeasedDelivery, endpoint: LiveEndpoint, exchange: Exchange, scheduled: int, now: int
    ) -> NextState:
        wait_ms = None if exchange.retry_after is None else retry_after_ms(exchange.retry_after, now)
        own_ms = endpoint.record.settings.retry_schedule_ms
        schedule = self._schedule if own_ms is None else RetrySchedule(own_ms)
        if exchange.failure is Failure.EGRESS:
            # This attempt is not counted as scheduled, so use the delay that follows the last scheduled attempt.
            scheduled, wait_ms = max(1, min(scheduled, len(schedule.delays_ms))), EGRESS_WAIT_MS_MIN
            schedule = schedule if schedule.delays_ms else _EGRESS_SCHEDULE
        return after_failure(
            before=previous_state(delivery),
            off=_is_off(endpoint),
            scheduled_attempts=scheduled,
            schedule=schedule,
            now_ms=now,
            expires_at=delivery.expires_at,
            retry_after_ms=wait_ms,
            draw=self._random.random(),
        )

    def _update_health(
        self, flight: _InFlight, outcome: Outcome, exchange: Exchange, now: int, *, counts: bool
    ) -> None:
        """Update the circuit breaker and, if `counts` is true, the endpoint's health."""
        lane, endpoint = flight.lane, flight.endpoint
        if not _counts_for_health(endpoint, exchange, now):
            return
        if self._shards.owns(endpoint.seq):
            if counts:
                self._note_health(flight, outcome, exchange, now)
            if outcome is not _DELIVERED or lane.breaker.failures:
                update_breaker(lane, outcome, exchange, now, self._breaker, counts=counts)
                self._note_probe(lane, endpoint)
        elif counts and outcome is _DELIVERED and endpoint.health.failing_since is not None:
            # Another process took over the endpoint during the attempt.
            self._shards.report_success(endpoint.seq, now)

    def _note_health(self, flight: _InFlight, outcome: Outcome, exchange: Exchange, now: int) -> None:
        endpoint = flight.endpoint
        own_fault = is_own_fault(exchange)
        failed_before = endpoint.health.failing_since is not None
        location = exchange.location if outcome is _REDIRECT else None
        health = endpoint.health = endpoint.health.after(
            outcome,
            now,
            own_fault=own_fault,
            status_code=exchange.status_code,
            error=first_line(exchange.response_body) if outcome in RESPONDED else exchange.error,
            location=location and shown_location(location),
        )
        self._settler.note_health(endpoint, now)
        if failed_before or health.failing_since is not None:
            self._monitor.note(endpoint)
        if exchange.status_code == GONE:
            self._monitor.note_gone_response(endpoint)

    def _note_probe(self, lane: Lane[LeasedDelivery], endpoint: LiveEndpoint) -> None:
        """Store the time of a failing endpoint's next probe, so that its circuit breaker stays open after a restart."""
        health = endpoint.health
        if health.failing_since is not None and health.probe_at != lane.breaker.probe_at:
            endpoint.health = health._replace(probe_at=lane.breaker.probe_at)
            self._settler.keep_health(endpoint)


def unattempted(delivery: LeasedDelivery, verdict: NextState, now: int) -> Settlement:
    """Return the settlement for a delivery that gets a new status but is not attempted."""
    return Settlement(
        delivery.event_seq,
        delivery.endpoint_seq,
        delivery.fence,
        verdict.status,
        verdict.due_at,
        delivery.attempts_made,
        delivery.scheduled_attempts,
        None,
        verdict.failed_reason,
        None if verdict.status in OPEN else now,
        None,
        order_group=delivery.order_group,
    )


def _is_off(endpoint: LiveEndpoint) -> bool:
    """Return whether unsent deliveries must be held because the endpoint is paused or disabled.

    Return False while the server drops the held deliveries of the endpoint. The unsent deliveries then stay pending.
    """
    record = endpoint.record
    return record.state is not EndpointState.ENABLED and record.held_action is not HeldAction.DROP


def _counts_for_health(endpoint: LiveEndpoint, exchange: Exchange, now: int) -> bool:
    """Return whether an exchange counts toward the endpoint's health.

    It counts only if the endpoint was enabled during the whole attempt.
    """
    record = endpoint.record
    since = record.state_since or 0
    # `since` is in the future if the machine's clock was set back and the process restarted.
    return record.state is _ENABLED and (exchange.started_at >= since or since > now)


def previous_state(delivery: LeasedDelivery) -> NextState | None:
    """Return the state of a delivery before its resend, replay or test, or None for a scheduled attempt."""
    return previous(delivery.resume_status, delivery.resume_due_at or delivery.lease_until)


def _row(flight: _InFlight, outcome: Outcome, exchange: Exchange) -> AttemptRow:
    delivery = flight.delivery
    return AttemptRow(
        delivery.event_seq,
        delivery.endpoint_seq,
        flight.number,
        delivery.trigger,
        exchange.started_at,
        exchange.duration_us,
        exchange.dns_ms,
        exchange.connect_ms,
        exchange.tls_ms,
        exchange.first_byte_ms,
        exchange.status_code,
        outcome,
        SIGNED_WRONGLY if delivery.wrong_signature and exchange.failure is None else exchange.error,
        exchange.location,
        exchange.remote_address,
        flight.head,
        exchange.response_head,
        exchange.response_body,
        exchange.body_truncated,
    )


def _line(flight: _InFlight, outcome: Outcome, exchange: Exchange, verdict: NextState) -> AttemptLine:
    delivery = flight.delivery
    endpoint = flight.endpoint
    return AttemptLine(
        at=exchange.started_at,
        event=uuid_text(delivery.event_id),
        delivery=delivery_id(delivery.event_id, endpoint.record.id),
        endpoint=endpoint.id_text,
        account=endpoint.account_text,
        type=flight.event_type.name,
        attempt=flight.number,
        trigger=delivery.trigger.text,
        outcome=outcome.text,
        status_code=exchange.status_code,
        duration_ms=exchange.duration_us / 1000,
        dns_ms=exchange.dns_ms,
        connect_ms=exchange.connect_ms,
        tls_ms=exchange.tls_ms,
        first_byte_ms=exchange.first_byte_ms,
        remote_address=exchange.remote_address,
        reused=exchange.reused,
        next_attempt_at=verdict.due_at,
        delivery_status=verdict.status.text,
        error=exchange.error,
    )
