"""Applies the circuit breaker rules of `core.scheduling.circuit_breaker` to endpoints."""

from uplift_server.core.deliveries.outcomes import Outcome, is_own_fault
from uplift_server.core.http.exchange import Exchange
from uplift_server.core.scheduling.circuit_breaker import BreakerRule
from uplift_server.core.scheduling.lane import Lane
from uplift_server.core.scheduling.retry_schedule import retry_after_ms
from uplift_server.store.hot_records import LeasedDelivery


def update_breaker(
    lane: Lane[LeasedDelivery], outcome: Outcome, exchange: Exchange, now_ms: int, rule: BreakerRule, *, counts: bool
) -> None:
    """Update the circuit breaker of an endpoint's lane after an attempt.

    `counts` states whether the attempt counts toward the endpoint's health. If `counts` is false, a failure changes the
    breaker only if the response requests a pause (`Retry-After`). A failure that the receiver did not cause never
    changes the breaker.
    """
    if outcome is Outcome.DELIVERED:
        lane.breaker = lane.breaker.after_success(now_ms - exchange.duration_us // 1000)
        return
    if is_own_fault(exchange):
        return
    pause_ms = _requested_pause_ms(exchange, now_ms)
    if counts or pause_ms:
        timed_out = outcome is Outcome.TIMEOUT
        lane.breaker = lane.breaker.after_failure(now_ms, timed_out=timed_out, rule=rule, retry_after_ms=pause_ms)


def _requested_pause_ms(exchange: Exchange, now_ms: int) -> int:
    """Return the pause in ms that a 429 or 503 response requests, or 0 for other responses."""
    return retry_after_ms(exchange.retry_after, now_ms) or 0 if exchange.status_code in (429, 503) else 0
