"""Attempts that fail at the address policy or the egress do not count against the receiver."""

import pytest
from tests.engines import Place

from uplift_server.core.deliveries.causes import explain
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.lifecycle import FailedReason, Status
from uplift_server.delivery.sending.attempts import EGRESS_WAIT_MS_MIN

from .world import SECOND, World, respond

BLOCKED = {
    "private": "connections to hooks.example are not allowed: loopback (127.0.0.0/8, RFC 1122)",
    "metadata": "connections to hooks.example are not allowed: cloud metadata service (169.254.169.254/32, RFC 3927)",
    "plain http": "connections to hooks.example are not allowed: public address. "
    "http is allowed for private addresses only; use https",
    "other version": "there is no egress IP for IPv6",
    "proxy's rules": "the egress proxy does not allow a tunnel to 192.0.2.1:22 (status 403)",
}
EGRESS_FAILURES = {
    "proxy down": "the egress proxy failed: could not connect to 127.0.0.1:3128: connection refused",
    "proxy rejects credentials": "the egress proxy rejected the credentials (status 407)",
    "proxy silent": "the egress proxy did not open a tunnel to 192.0.2.1:443 within 5 s",
    "address unassigned": "could not send from the egress IP 192.0.2.1: cannot assign requested address",
    "no file descriptors": "could not connect to 192.0.2.1:443: too many open files",
}


def fail_before_connecting(failure: Failure, text: str) -> Exchange:
    """Return the exchange of an attempt that failed before the connection was open."""
    return Exchange(0, 1000, failure=failure, error=text, bytes_sent=False)


@pytest.mark.parametrize("error", BLOCKED.values(), ids=BLOCKED)
async def test_a_blocked_attempt_does_not_count_for_health(place: Place, error: str) -> None:
    async with World(place, breaker_failures=3, delays_ms=[5 * SECOND] * 3) as world:
        endpoint = await world.endpoint("hooks.test", lambda _: fail_before_connecting(Failure.BLOCKED, error))
        await world.accept(10)
        await world.run_for(30 * SECOND)
        rows = await world.deliveries()
        assert {(row.status, row.attempts_made, row.failed_reason) for row in rows} == {
            (Status.FAILED, 4, FailedReason.EXHAUSTED)
        }
        assert {row.outcome for row in await world.attempts()} == {Outcome.BLOCKED}
        assert world.parts.status.next_probe_at(endpoint.seq) is None
        assert endpoint.health.failing_since is None
        assert endpoint.health.consecutive_failures == 0
        explanation = explain(Outcome.BLOCKED, status_code=None, error=error, location=None)
        assert explanation is not None
        assert ("to https" in explanation.remedy) is ("use https" in error)


async def test_a_retry_delivers_after_the_address_is_corrected(place: Place) -> None:
    async with World(place, breaker_failures=3, delays_ms=[5 * SECOND] * 3) as world:
        await world.endpoint("hooks.test", lambda _: fail_before_connecting(Failure.BLOCKED, BLOCKED["private"]))
        await world.accept(10)
        await world.run_for(7 * SECOND)
        world.sender.scripts["hooks.test"] = lambda _: respond(200)
        await world.run_for(10 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 10}


@pytest.mark.parametrize("error", EGRESS_FAILURES.values(), ids=EGRESS_FAILURES)
async def test_egress_failures_use_no_scheduled_attempt(place: Place, error: str) -> None:
    async with World(place, breaker_failures=3, delays_ms=[SECOND] * 2) as world:
        endpoint = await world.endpoint("hooks.test", lambda _: fail_before_connecting(Failure.EGRESS, error))
        await world.accept(1)
        # Long enough for about ten attempts.
        await world.run_for(10 * EGRESS_WAIT_MS_MIN)
        [row] = await world.deliveries()
        assert (row.status, row.scheduled_attempts) == (Status.PENDING, 0)
        assert 8 <= row.attempts_made <= 11
        assert world.parts.status.next_probe_at(endpoint.seq) is None
        assert endpoint.health.failing_since is None
        explanation = explain(Outcome.CONNECT_ERROR, status_code=None, error=error, location=None)
        assert explanation is not None
        assert explanation.cause.startswith("Uplift Webhooks could not open an outbound connection")
        world.sender.scripts["hooks.test"] = lambda _: respond(200)
        await world.run_for(2 * EGRESS_WAIT_MS_MIN)
        assert await world.statuses() == {Status.DELIVERED: 1}
