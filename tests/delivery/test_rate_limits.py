"""Rate limits of endpoints, and `Retry-After` of receivers."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from msgspec import structs
from tests.engines import Place

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.endpoint_settings import EndpointSettings
from uplift_server.core.events.catalog import WEBHOOK_CREATED
from uplift_server.core.lifecycle import Status
from uplift_server.delivery.sending.http.request import Request

from .test_engine import resend
from .world import SECOND, START, World, respond


def most_in_a_second(times: Sequence[int]) -> int:
    """Return the largest number of starts within any one second."""
    return max(sum(at <= other < at + SECOND for other in times) for at in times)


@pytest.mark.parametrize("rate", [1, 3, 10])
@pytest.mark.parametrize("end", ["restart", "kill"])
async def test_a_rate_limit_holds_across_a_restart(place: Place, rate: int, end: str) -> None:
    async with World(place) as world:
        await world.endpoint("one.test", rate_limit_per_second=rate)
        await world.accept(8 * rate)
        for _ in range(3):
            await world.run_for(1300)
            await (world.kill() if end == "kill" else world.restart())
        await world.run_for(40 * SECOND)
        times = world.sender.times("one.test")
        assert len(times) == 8 * rate
        assert most_in_a_second(times) <= rate
        assert {row.attempts_made for row in await world.deliveries()} == {1}


async def test_a_limit_of_one_per_second_holds_with_thousands_waiting(place: Place) -> None:
    """Few deliveries are leased at a time, none waits beyond its lease, and waiting does not count as an attempt."""
    async with World(place) as world:
        await world.endpoint("one.test", rate_limit_per_second=1)
        for _ in range(3):
            await world.accept(1000)
        released = []
        release_lease = world.parts.attempts._release_lease
        world.parts.attempts._release_lease = lambda delivery: (released.append(delivery), release_lease(delivery))[1]
        for _ in range(12):
            await world.run_for(10 * SECOND)
            leased = [row for row in await world.deliveries() if row.lease_owner]
            assert len(leased) <= 6
        rows = await world.deliveries()
        times = world.sender.times("one.test")
        assert released == []
        assert 115 <= len(times) <= 120
        assert {later - earlier for earlier, later in pairwise(times)} <= set(range(980, 1021))
        assert sorted({row.attempts_made for row in rows}) == [0, 1]
        assert sum(row.status == Status.DELIVERED for row in rows) == len(times)


async def test_retries_respect_the_limit(place: Place) -> None:
    async with World(place, delays_ms=[5 * SECOND] * 3) as world:
        await world.endpoint("one.test", lambda _: respond(500), rate_limit_per_second=5)
        await world.accept(40)
        await world.run_for(90 * SECOND)
        times = world.sender.times("one.test")
        assert len(times) == 160
        assert most_in_a_second(times) <= 5
        assert {row.status for row in await world.deliveries()} == {Status.FAILED}


async def test_a_raised_or_removed_limit_takes_effect_immediately(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test", rate_limit_per_second=1)
        await world.accept(50)
        await world.run_for(2 * SECOND)
        before = len(world.sender.sent)
        assert before <= 2
        world.cache.put_endpoint(structs.replace(endpoint.record, settings=EndpointSettings(rate_limit_per_second=20)))
        await world.run_for(SECOND)
        raised = world.sender.times("one.test")[before:]
        assert 19 <= len(raised) <= 21
        assert most_in_a_second(raised) <= 20
        world.cache.put_endpoint(
            structs.replace(endpoint.record, settings=EndpointSettings(rate_limit_per_second=None))
        )
        await world.run_for(SECOND)
        assert len(world.sender.sent) == 50


async def test_a_lowered_limit_takes_effect_immediately(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test", rate_limit_per_second=20)
        await world.accept(50)
        await world.run_for(SECOND)
        before = len(world.sender.sent)
        assert before >= 18
        world.cache.put_endpoint(structs.replace(endpoint.record, settings=EndpointSettings(rate_limit_per_second=1)))
        await world.run_for(10 * SECOND)
        assert 9 <= len(world.sender.sent) - before <= 10


# ---- Retry-After


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_with_429_or_503_pauses_all_deliveries_of_the_endpoint(place: Place, status: int) -> None:
    async with World(place, breaker_failures=10, delays_ms=[5 * SECOND] * 3) as world:
        requests = []

        def script(request: Request) -> object:
            requests.append(request)
            return respond(status, retry_after="120") if len(requests) == 1 else respond(200)

        await world.endpoint("one.test", script)
        await world.accept(1)
        await world.run_for(SECOND)
        await world.accept(200)
        await world.run_for(118 * SECOND)
        assert len(world.sender.sent) == 1
        assert world.parts.status.next_probe_at(1) == START + 120 * SECOND
        assert max(row.attempts_made for row in (await world.deliveries())[1:]) == 0
        await world.run_for(12 * SECOND)
        rows = await world.deliveries()
        assert [row.attempts_made for row in rows] == [2] + [1] * 200
        assert {row.status for row in rows} == {Status.DELIVERED}


async def test_retry_after_pauses_the_endpoint_after_a_restart(place: Place) -> None:
    async with World(place, breaker_failures=10, delays_ms=[5 * SECOND] * 3) as world:
        turns = iter([respond(429, retry_after="120")])
        endpoint = await world.endpoint("one.test", lambda _: next(turns, respond(200)))
        await world.accept(1)
        await world.accept(30)
        await world.kill()
        assert world.parts.status.next_probe_at(endpoint.seq) == START + 120 * SECOND
        await world.run_for(119 * SECOND)
        assert world.sender.times("one.test") == [START]
        await world.run_for(40 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 31}


async def test_retry_after_with_another_status_delays_only_its_delivery(place: Place) -> None:
    async with World(place, breaker_failures=10) as world:
        turns = iter([respond(502, retry_after="120")])
        await world.endpoint("one.test", lambda _: next(turns, respond(200)))
        await world.accept(1)
        await world.accept(3)
        await world.run_for(119 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 3, Status.PENDING: 1}
        await world.run_for(2 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 4}


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_of_the_registration_event_pauses_the_endpoint(place: Place, status: int) -> None:
    async with World(place, breaker_failures=10) as world:
        turns = iter([respond(status, retry_after="120")])
        endpoint = await world.endpoint("one.test", lambda _: next(turns, respond(200)))
        await world.add_event_type(WEBHOOK_CREATED)
        await world.accept(1, event_type=WEBHOOK_CREATED)
        await world.accept(30)
        await world.run_for(119 * SECOND)
        assert world.sender.times("one.test") == [START]
        assert world.parts.status.next_probe_at(endpoint.seq) == START + 120 * SECOND
        assert endpoint.health.status == "unknown"
        await world.run_for(11 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 31}
        assert world.parts.status.next_probe_at(endpoint.seq) is None


async def test_a_delivered_registration_event_ends_the_wait(place: Place) -> None:
    async with World(place, breaker_failures=10) as world:
        turns = iter([respond(429, retry_after="120")])
        endpoint = await world.endpoint("one.test", lambda _: next(turns, respond(200)))
        await world.add_event_type(WEBHOOK_CREATED)
        await world.accept(1, event_type=WEBHOOK_CREATED)
        await world.run_for(130 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 1}
        assert world.parts.status.next_probe_at(endpoint.seq) is None


async def test_attempts_in_flight_do_not_end_the_wait(place: Place) -> None:
    """A limiter of the receiver may accept some requests while it rejects others."""
    async with World(place, breaker_failures=10, delays_ms=[5 * SECOND] * 3) as world:
        world.sender.latency_ms["one.test"] = 500
        turns = iter([respond(429, retry_after="60")])
        await world.endpoint("one.test", lambda _: next(turns, respond(200)))
        await world.accept(40)
        await world.run_for(59 * SECOND)
        # Four started together. Three of them succeeded.
        assert len(world.sender.sent) == 4
        await world.run_for(40 * SECOND)
        assert (await world.statuses()) == {Status.DELIVERED: 40}


async def test_a_long_retry_after_is_limited_to_the_probe_interval(place: Place) -> None:
    async with World(place, breaker_failures=10, delays_ms=[5 * SECOND] * 9) as world:
        await world.endpoint("one.test", lambda _: respond(429, retry_after="86400"))
        await world.accept(1)
        await world.run_for(SECOND)
        await world.accept(3)
        await world.run_for(16 * 60 * SECOND)
        assert world.sender.times("one.test") == [START, *(START + n * 300 * SECOND for n in (1, 2, 3))]
        outcomes = {row.outcome for row in await world.attempts()}
        assert outcomes == {Outcome.THROTTLED}


async def test_a_resend_ignores_the_throttling_of_an_endpoint(place: Place) -> None:
    async with World(place, breaker_failures=10, delays_ms=[5 * SECOND] * 3) as world:
        turns = iter([respond(429, retry_after="300")])
        await world.endpoint("one.test", lambda _: next(turns, respond(200)), rate_limit_per_second=1)
        await world.accept(3)
        await world.run_for(10 * SECOND)
        assert len(world.sender.sent) == 1
        [first, *_] = await world.deliveries()
        await resend(world, first.event_seq, first.endpoint_seq)
        assert len(world.sender.sent) == 2
        # The attempt succeeded, so no delivery has to wait.
        await world.run_for(5 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 3}
